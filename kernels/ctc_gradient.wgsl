// CTC gradient: dlogits[b, t, c] = (softmax - share of the paths that emit c at t) up / (B max(target length, 1)), 0 past the input's length and where no
// path exists. The shares are normalised at every t, which removes the rounding errors that alpha and beta gather over time.
// An invocation owns a row (b, t) on both families: it adds up its states in order, without atomics. Grid: B T invocations. See ctc_alpha_beta.wgsl.
#include "lib/invocation.wgsl"
struct P { batch: u32, time: u32, labels: u32, classes: u32, blank: u32 }
@group(0) @binding(0) var<storage, read> logp: array<f32>;
@group(0) @binding(1) var<storage, read> alpha: array<f32>;
@group(0) @binding(2) var<storage, read> beta: array<f32>;
@group(0) @binding(3) var<storage, read> targets: array<i32>;
@group(0) @binding(4) var<storage, read> facts: array<vec4f>;
@group(0) @binding(5) var<storage, read> up: array<f32>;
@group(0) @binding(6) var<storage, read_write> dlogits: array<f32>;
@group(0) @binding(7) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = invocation(w, local);
  let b = row / p.time;
  if (b >= p.batch) { return; }
  let t = row % p.time;
  let fact = facts[b];
  let first = row * p.classes;
  for (var c = 0u; c < p.classes; c++) { dlogits[first + c] = 0.0; }
  if (t >= u32(fact.y) || fact.w == 0.0) { return; }
  let S = u32(fact.z);
  let state = row * (2u * p.labels + 1u);
  var blank = exp(alpha[state] + beta[state] - fact.x);
  var sum = blank;
  for (var s = 0u; s < S; s++) {
    let at = state + 2u * s + 1u;
    let label = u32(targets[b * p.labels + s]);
    let share = exp(alpha[at] + beta[at] - fact.x);
    dlogits[first + label] += share;
    let gap = exp(alpha[at + 1u] + beta[at + 1u] - fact.x);
    blank += gap;
    sum += share + gap;
  }
  dlogits[first + p.blank] += blank;
  let scale = up[0] / (f32(p.batch) * max(fact.z, 1.0));
  for (var c = 0u; c < p.classes; c++) { dlogits[first + c] = (exp(logp[first + c]) - dlogits[first + c] / sum) * scale; }
}
