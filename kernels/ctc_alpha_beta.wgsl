// CTC: the forward (alpha) or backward (beta) recursion in log space over the extended labels l' = blank, l1, blank, l2, ..., blank of an utterance.
//   BETA 0  alpha[t, s] = logaddexp(alpha[t-1, s], alpha[t-1, s-1], alpha[t-1, s-2] where l'_s is no blank and not l'_(s-2)) + logp[t, l'_s]
//   BETA 1  beta[t, s]  = the same over beta[t+1, s'] + logp[t+1, l'_s'], s' = s, s+1, s+2: the emission of t itself is not in beta,
// so that alpha + beta is the log-probability of all paths through s at t. -1e30 stands for log 0.
// A workgroup owns an utterance and walks through time, its lanes share the states, with a barrier a time step: unlike in most kernels it is cheap on
// CPU adapters too, where the workgroup is one subgroup and a step has 2 S + 1 states to do. Grid: B workgroups. Both families.
// logp [B, T, classes], targets [B, labels], states [B, T, 2 labels + 1] of which only real t and s are written.
// BETA 0 also writes facts[b] = (log-probability, input length, target length, 1 if any path exists) and losses[b] = -log-probability / target length,
// or the bits `impossible` where no path exists; losses from B up to `padded` are 0, so that totals may read vec4s.
struct P { batch: u32, padded: u32, time: u32, labels: u32, classes: u32, blank: i32, impossible: u32 }
@group(0) @binding(0) var<storage, read> logp: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<i32>;
@group(0) @binding(2) var<storage, read> input_lengths: array<i32>;
@group(0) @binding(3) var<storage, read> target_lengths: array<i32>;
@group(0) @binding(4) var<storage, read_write> states: array<f32>;
#if BETA == 0
@group(0) @binding(5) var<storage, read_write> facts: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> losses: array<f32>;
#end
@group(0) @binding(7) var<uniform> p: P;

const ZERO = -1e30;

fn add3(a: f32, b: f32, c: f32) -> f32 {
  let top = max(a, max(b, c));
  return max(ZERO, top + log(exp(a - top) + exp(b - top) + exp(c - top)));
}

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  let b = w.x;
  let T = u32(clamp(input_lengths[b], 0, i32(p.time)));
  let S = u32(clamp(target_lengths[b], 0, i32(p.labels)));
  let L = 2u * S + 1u;
  let pitch = 2u * p.labels + 1u;
  let base = b * p.time * pitch;
  let words = b * p.labels;
  // Every utterance takes p.time steps, so that all lanes provably reach the barrier.
  for (var step = 0u; step < p.time; step++) {
    if (step < T) {
#if BETA == 0
      let t = step;
      let emission = (b * p.time + t) * p.classes;
      let row = base + t * pitch;
      let before = row - pitch;
      for (var s = lane; s < L; s += ${WG}u) {
        let word = (s & 1u) == 1u;
        var label = p.blank;
        if (word) { label = targets[words + s / 2u]; }
        var value = select(ZERO, 0.0, s < 2u);
        if (step > 0u) {
          var one = ZERO;
          var two = ZERO;
          if (s > 0u) { one = states[before + s - 1u]; }
          if (word && s > 2u) { two = select(ZERO, states[before + s - 2u], targets[words + s / 2u - 1u] != label); }
          value = add3(states[before + s], one, two);
        }
        states[row + s] = max(ZERO, value + logp[emission + u32(label)]);
      }
#else
      let t = T - 1u - step;
      let emission = (b * p.time + t + 1u) * p.classes;
      let row = base + t * pitch;
      let after = row + pitch;
      for (var s = lane; s < L; s += ${WG}u) {
        let word = (s & 1u) == 1u;
        var value = select(ZERO, 0.0, s + 2u >= L);
        if (step > 0u) {
          var label = p.blank;
          var next = p.blank;
          var one = ZERO;
          var two = ZERO;
          if (word) { label = targets[words + s / 2u]; }
          if (s + 1u < L) {
            if (!word) { next = targets[words + s / 2u]; }
            one = states[after + s + 1u] + logp[emission + u32(next)];
          }
          if (word && s + 2u < L) {
            let skip = targets[words + s / 2u + 1u];
            two = select(ZERO, states[after + s + 2u] + logp[emission + u32(skip)], skip != label);
          }
          value = add3(states[after + s] + logp[emission + u32(label)], one, two);
        }
        states[row + s] = value;
      }
#end
    }
    storageBarrier();
  }
#if BETA == 0
  if (lane == 0u) {
    var total = ZERO;
    if (T > 0u) {
      let last = base + (T - 1u) * pitch + L - 1u;
      var word = ZERO;
      if (S > 0u) { word = states[last - 1u]; }
      total = add3(states[last], word, ZERO);
    }
    let possible = total > -1e29;
    facts[b] = vec4f(total, f32(T), f32(S), select(0.0, 1.0, possible));
    losses[b] = select(bitcast<f32>(p.impossible), -total / max(f32(S), 1.0), possible);
    if (b == 0u) {
      for (var i = p.batch; i < p.padded; i++) { losses[i] = 0.0; }
    }
  }
#end
}
