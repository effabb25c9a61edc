// Layer norm as in layer_norm.wgsl, for software adapters and rows of whole vec4s that are too long for layer_norm_subgroup: a subgroup walks along four rows
// at once, twice, so that memory is read in order and a load of weight and bias serves four rows.
// IMAGE: x is read from its image (src/plan/images.ts). Grid: one workgroup of one subgroup per block of rows.
enable subgroups;
#include "lib/gelu.wgsl"
#include "lib/image.wgsl"
#include "lib/lanes.wgsl"
struct P { rows: u32, block: u32, width: u32, eps: f32 }
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

fn total(v: vec4f) -> f32 { return (v.x + v.y) + (v.z + v.w); }

@compute @workgroup_size(${SG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let width = p.width;
  let eps = p.eps;
  let n = f32(4u * width);
  let start = (wg.y * 65535u + wg.x) * p.block;
  let end = min(start + p.block, p.rows);
  for (var row = start; row < end; row += 4u) {
    // Past the end of the block the last row is done again, to the same result.
#for r in 0..4
    let row${r} = min(row + ${r}u, end - 1u);
    let at${r} = row${r} * width;
    let shift${r} = x_at(at${r}).x;
    var mean${r} = vec4f();
    var m2_${r} = vec4f();
#end
    var count = 0.0;
    for (var i = lane; i < width; i += ${SG}u) {
      count += 1.0;
      let share = 1.0 / count;
#for r in 0..4
      let d${r} = x_at(at${r} + i) - shift${r};
      let delta${r} = d${r} - mean${r};
      mean${r} += delta${r} * share;
      m2_${r} += delta${r} * (d${r} - mean${r});
#end
    }
#for r in 0..4
    let centre${r} = lanes_sum(vec2f(count * total(mean${r}), 0.0)).x / n;
    let off${r} = mean${r} - centre${r};
    let rstd${r} = 1.0 / sqrt(lanes_sum(vec2f(total(m2_${r} + off${r} * off${r} * count), 0.0)).x / n + eps);
    if (lane == 0u) { stats[row${r}] = vec4f(shift${r}, centre${r}, rstd${r}, 0.0); }
#end
    for (var i = lane; i < width; i += ${SG}u) {
#if WEIGHT
      let w = weight[i];
#end
#if BIAS
      let b = bias[i];
#end
#for r in 0..4
      {
        var v = (x_at(at${r} + i) - shift${r} - centre${r}) * rstd${r};
#if WEIGHT
        v *= w;
#end
#if BIAS
        v += b;
#end
#if ACT
        v = gelu(v);
#end
        y[at${r} + i] = v;
      }
#end
    }
  }
}
