// y[b] = (mean, deviation) over t of x[b, t] weighted by mask[b, t] (1 without MASK), deviation = sqrt(variance + eps); counts[b] = max(sum of the mask, 1).
// x [B, T, width], y [B, 2 width] in vec4s where VEC; an invocation owns one column of one b and walks over t twice, so that a large mean costs no digits.
// Both families.
#include "lib/invocation.wgsl"
#include "lib/vec.wgsl"
struct P { batch: u32, time: u32, width: u32, eps: f32 }
@group(0) @binding(0) var<storage, read> x: array<V>;
#if MASK
@group(0) @binding(1) var<storage, read> mask: array<f32>;
#end
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> counts: array<f32>;
@group(0) @binding(4) var<uniform> p: P;

fn weight(row: u32) -> f32 {
#if MASK
  return mask[row];
#else
  return 1.0;
#end
}

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  let b = id / p.width;
  if (b >= p.batch) { return; }
  let column = id % p.width;
  let first = b * p.time;
  var sum = V();
  var total = 0.0;
  for (var t = first; t < first + p.time; t++) {
    let m = weight(t);
    // A masked row must not count even when it is not a number.
    sum += select(V(), x[t * p.width + column] * m, m != 0.0);
    total += m;
  }
  let count = max(total, 1.0);
  let mean = sum / count;
  var squares = V();
  for (var t = first; t < first + p.time; t++) {
    let m = weight(t);
    let d = x[t * p.width + column] - mean;
    squares += select(V(), d * d * m, m != 0.0);
  }
  y[2u * b * p.width + column] = mean;
  y[(2u * b + 1u) * p.width + column] = sqrt(squares / count + p.eps);
  if (column == 0u) { counts[b] = count; }
}
