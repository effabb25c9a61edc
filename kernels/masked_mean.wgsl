// y[b] = sum over t of mask[b, t] x[b, t] / count_b, count_b = max(sum over t of mask[b, t], 1); without MASK the mean over all t.
// x [B, T, width], y [B, width] in vec4s where VEC; an invocation owns one of them and walks over t. Also writes counts [B]. Both families.
#include "lib/invocation.wgsl"
#include "lib/vec.wgsl"
struct P { batch: u32, time: u32, width: u32 }
@group(0) @binding(0) var<storage, read> x: array<V>;
#if MASK
@group(0) @binding(1) var<storage, read> mask: array<f32>;
#end
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> counts: array<f32>;
@group(0) @binding(4) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  let b = id / p.width;
  if (b >= p.batch) { return; }
  let column = id % p.width;
  var sum = V();
  var at = b * p.time * p.width + column;
#if MASK
  var weight = 0.0;
  for (var t = b * p.time; t < (b + 1u) * p.time; t++) {
    let m = mask[t];
    // A masked row must not count even when it is not a number.
    sum += select(V(), x[at] * m, m != 0.0);
    weight += m;
    at += p.width;
  }
  let count = max(weight, 1.0);
#else
  for (var t = 0u; t < p.time; t++) {
    sum += x[at];
    at += p.width;
  }
  let count = f32(p.time);
#end
  y[id] = sum / count;
  if (column == 0u) { counts[b] = count; }
}
