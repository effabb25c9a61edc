// Softmax (LOG 0) or log-softmax (LOG 1) as in softmax.wgsl, for software adapters and rows of whole vec4s: a subgroup walks along a row, so that memory is
// read in order, twice: maximum and sum in one walk (each lane keeps its own and rescales the sum whenever the maximum grows), then the result.
// IMAGE: x is read from its image (src/plan/images.ts). Grid: one workgroup of one subgroup per block of rows.
enable subgroups;
#include "lib/image.wgsl"
#include "lib/lanes.wgsl"
struct P { rows: u32, block: u32, width: u32 }
#if IMAGE
@group(0) @binding(0) var x: texture_storage_2d<rgba32float, read>;
fn x_at(i: u32) -> vec4f { return textureLoad(x, texel(i)); }
#else
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
fn x_at(i: u32) -> vec4f { return x[i]; }
#end
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${SG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let width = p.width;
  let start = (wg.y * 65535u + wg.x) * p.block;
  let end = min(start + p.block, p.rows);
  for (var row = start; row < end; row++) {
    let base = row * width;
    var top = vec4f(-3e38);
    var sum = vec4f();
    for (var i = lane; i < width; i += ${SG}u) {
      let v = x_at(base + i);
      let higher = max(top, v);
      sum = sum * exp(top - higher) + exp(v - higher);
      top = higher;
    }
    let highest = lanes_max(max(max(top.x, top.y), max(top.z, top.w)));
    sum *= exp(top - highest);
    let total = lanes_sum(vec2f((sum.x + sum.y) + (sum.z + sum.w), 0.0)).x;
#if LOG
    let shift = highest + log(total);
    for (var i = lane; i < width; i += ${SG}u) { y[base + i] = x_at(base + i) - shift; }
#else
    let scale = 1.0 / total;
    for (var i = lane; i < width; i += ${SG}u) { y[base + i] = exp(x_at(base + i) - highest) * scale; }
#end
  }
}
