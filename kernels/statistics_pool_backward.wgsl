// dx[b, t] = mask[b, t] / counts[b] (up_mean[b] + up_deviation[b] (x[b, t] - mean[b]) / deviation[b]), see statistics_pool.wgsl.
// x, dx [B, T, width]; y, up [B, 2 width] in vec4s where VEC. Grid: one invocation per element of dx. Both families.
#include "lib/invocation.wgsl"
#include "lib/vec.wgsl"
struct P { n: u32, time: u32, width: u32 }
@group(0) @binding(0) var<storage, read> x: array<V>;
#if MASK
@group(0) @binding(1) var<storage, read> mask: array<f32>;
#end
@group(0) @binding(2) var<storage, read> y: array<V>;
@group(0) @binding(3) var<storage, read> counts: array<f32>;
@group(0) @binding(4) var<storage, read> up: array<V>;
@group(0) @binding(5) var<storage, read_write> dx: array<V>;
@group(0) @binding(6) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(w, local);
  if (i >= p.n) { return; }
  let row = i / p.width;
  let b = row / p.time;
  let mean = 2u * b * p.width + i % p.width;
  let deviation = mean + p.width;
#if MASK
  let m = mask[row] / counts[b];
#else
  let m = 1.0 / counts[b];
#end
  dx[i] = select(V(), m * (up[mean] + up[deviation] * (x[i] - y[mean]) / y[deviation]), m != 0.0);
}
