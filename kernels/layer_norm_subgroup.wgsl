// Layer norm as in layer_norm.wgsl, for adapters whose subgroups have SG lanes (4 to 32) and D a multiple of 4 SG: a subgroup takes a block of rows, lane l
// holds vec4s l, l + SG, ... of a row in registers. One load and one store an element, weight and bias are loaded once a block, and memory is walked in
// order. On lavapipe a row per lane, which touches as many distant lines as there are lanes, is 2 to 4 times slower on tensors over the cache.
// IMAGE: x is read from its image (src/plan/images.ts). Grid: one workgroup of one subgroup per block of rows.
enable subgroups;
#include "lib/gelu.wgsl"
#include "lib/image.wgsl"
#include "lib/lanes.wgsl"
struct P { rows: u32, block: u32, eps: f32 }
#if IMAGE
@group(0) @binding(0) var x: texture_storage_2d<rgba32float, read>;
fn x_at(i: u32) -> vec4f { return textureLoad(x, texel(i)); }
#else
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
fn x_at(i: u32) -> vec4f { return x[i]; }
#end
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec4f>;
@group(0) @binding(3) var<uniform> p: P;
#if WEIGHT
@group(0) @binding(4) var<storage, read> weight: array<vec4f>;
#end
#if BIAS
@group(0) @binding(5) var<storage, read> bias: array<vec4f>;
#end

@compute @workgroup_size(${SG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = (wg.y * 65535u + wg.x) * p.block;
  let end = min(start + p.block, p.rows);
#for i in 0..V
#if WEIGHT
  let w${i} = weight[lane + ${i * SG}u];
#end
#if BIAS
  let b${i} = bias[lane + ${i * SG}u];
#end
#end
  for (var row = start; row < end; row++) {
    let at = row * ${V * SG}u + lane;
#for i in 0..V
    var v${i} = x_at(at + ${i * SG}u);
#end
    let shift = subgroupBroadcast(v0.x, 0u);
    var sum = vec4f();
#for i in 0..V
    v${i} -= shift;
    sum += v${i};
#end
    let centre = lanes_sum(vec2f((sum.x + sum.y) + (sum.z + sum.w), 0.0)).x / ${4 * V * SG}.0;
    sum = vec4f();
#for i in 0..V
    v${i} -= centre;
    sum += v${i} * v${i};
#end
    let variance = lanes_sum(vec2f((sum.x + sum.y) + (sum.z + sum.w), 0.0)).x / ${4 * V * SG}.0;
    let rstd = 1.0 / sqrt(variance + p.eps);
    if (lane == 0u) { stats[row] = vec4f(shift, centre, rstd, 0.0); }
#for i in 0..V
    v${i} *= rstd;
#if WEIGHT
    v${i} *= w${i};
#end
#if BIAS
    v${i} += b${i};
#end
#if ACT
    v${i} = gelu(v${i});
#end
    y[at + ${i * SG}u] = v${i};
#end
  }
}
