// First pass of the gradient of a weighted sum's weights: sums[index parts + i] = inner product of x and up over run i of `parts` runs of n elements.
// Second pass: axis_sum.wgsl over the parts. Grid: one invocation per run; runs interleave on GPUs (step = parts) and are contiguous in software. Both families.
#include "lib/invocation.wgsl"
struct P { n: u32, parts: u32, index: u32, per: u32, step: u32, count: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> up: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  if (id >= p.parts) { return; }
  var sum = 0.0;
  var i = id * p.per;
  for (var k = 0u; k < p.count && i < p.n; k++) {
    sum += x[i] * up[i];
    i += p.step;
  }
  sums[p.index * p.parts + id] = sum;
}
