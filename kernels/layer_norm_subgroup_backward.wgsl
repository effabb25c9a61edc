// All gradients of layer norm in one walk; maths in layer_norm_backward.wgsl and layer_norm_columns.wgsl, adapters and work split as in
// layer_norm_subgroup.wgsl. Column sums stay in registers over the block of rows: part_weight, part_bias [blocks, D].
// IMAGE: x and dy are read from their images (src/plan/images.ts). held: V. Grid: one workgroup of one subgroup per block of rows. Measured with layer_norm_subgroup on lavapipe, forward and backward with GELU, 65528 rows of 64:
// 26 ms of two cores, against 69 ms with a row per lane.
enable subgroups;
#include "lib/gelu.wgsl"
#include "lib/image.wgsl"
#include "lib/lanes.wgsl"
struct P { rows: u32, block: u32, held: u32 }
#if IMAGE
@group(0) @binding(0) var dy: texture_storage_2d<rgba32float, read>;
@group(0) @binding(1) var x: texture_storage_2d<rgba32float, read>;
fn dy_at(i: u32) -> vec4f { return textureLoad(dy, texel(i)); }
fn x_at(i: u32) -> vec4f { return textureLoad(x, texel(i)); }
#else
@group(0) @binding(0) var<storage, read> dy: array<vec4f>;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
fn dy_at(i: u32) -> vec4f { return dy[i]; }
fn x_at(i: u32) -> vec4f { return x[i]; }
#end
@group(0) @binding(2) var<storage, read> stats: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4f>;
@group(0) @binding(4) var<uniform> p: P;
#if WEIGHT
@group(0) @binding(5) var<storage, read> weight: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> part_weight: array<vec4f>;
#end
#if BIAS
#if ACT
@group(0) @binding(7) var<storage, read> bias: array<vec4f>;
#end
@group(0) @binding(8) var<storage, read_write> part_bias: array<vec4f>;
#end

@compute @workgroup_size(${SG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let block = wg.y * 65535u + wg.x;
  let start = block * p.block;
  let end = min(start + p.block, p.rows);
#for i in 0..V
#if WEIGHT
  let w${i} = weight[lane + ${i * SG}u];
  var sum_w${i} = vec4f();
#end
#if BIAS
#if ACT
  let b${i} = bias[lane + ${i * SG}u];
#end
  var sum_b${i} = vec4f();
#end
#end
  for (var row = start; row < end; row++) {
    let at = row * ${V * SG}u + lane;
    let s = stats[row];
    var sum_g = vec4f();
    var sum_gx = vec4f();
#for i in 0..V
    let xh${i} = (x_at(at + ${i * SG}u) - s.x - s.y) * s.z;
    var g${i} = dy_at(at + ${i * SG}u);
#if ACT
    {
      var u = xh${i};
#if WEIGHT
      u *= w${i};
#end
#if BIAS
      u += b${i};
#end
      g${i} *= gelu_slope(u);
    }
#end
#if BIAS
    sum_b${i} += g${i};
#end
#if WEIGHT
    sum_w${i} += g${i} * xh${i};
    g${i} *= w${i};
#end
    sum_g += g${i};
    sum_gx += g${i} * xh${i};
#end
    let mean = lanes_sum(vec2f((sum_g.x + sum_g.y) + (sum_g.z + sum_g.w), (sum_gx.x + sum_gx.y) + (sum_gx.z + sum_gx.w))) / ${4 * V * SG}.0;
#for i in 0..V
    dx[at + ${i * SG}u] = (g${i} - mean.x - xh${i} * mean.y) * s.z;
#end
  }
  // Loops whose length the compiler cannot see: unrolled stores would be most of the compile time.
  let held = p.held;
  let first = block * ${V * SG}u + lane;
#if WEIGHT
  var weights = array<vec4f, ${V}>(
#for i in 0..V
    sum_w${i},
#end
  );
  for (var i = 0u; i < held; i++) { part_weight[first + i * ${SG}u] = weights[i]; }
#end
#if BIAS
  var biases = array<vec4f, ${V}>(
#for i in 0..V
    sum_b${i},
#end
  );
  for (var i = 0u; i < held; i++) { part_bias[first + i * ${SG}u] = biases[i]; }
#end
}
