// Gradient of the mean L1 or squared error (weighted_sum.wgsl, total.wgsl) with respect to x:
//   KIND 1: dx = sign(x - y) * weight * up / denominator    KIND 2: dx = 2 (x - y) * weight * up / denominator    sign(0) = 0
// x, y, dx: n elements (vec4s where VEC) seen as groups of `group` that share a weight (MASK). Walks as weighted_sum.wgsl does; both families.
#include "lib/invocation.wgsl"
#include "lib/vec.wgsl"
struct P { n: u32, group: u32, span: u32, jump_groups: u32, jump_rest: u32 }
@group(0) @binding(0) var<storage, read> x: array<V>;
@group(0) @binding(1) var<storage, read> y: array<V>;
#if MASK
@group(0) @binding(2) var<storage, read> mask: array<f32>;
#end
@group(0) @binding(3) var<storage, read> up: array<f32>;
@group(0) @binding(4) var<storage, read> denominator: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<V>;
@group(0) @binding(6) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let wg = invocation(w, local) / ${WG}u;
  let first = wg * p.span + local;
  let end = min(p.n, (wg + 1u) * p.span);
  let scale = up[0] / denominator[0];
#if MASK
  var row = first / p.group;
  var rest = first % p.group;
#end
  for (var i = first; i < end; i += ${WG}u) {
    let d = x[i] - y[i];
#if KIND == 1
    let slope = sign(d) * scale;
#else
    let slope = d * (2.0 * scale);
#end
#if MASK
    let m = mask[row];
    dx[i] = select(V(), slope * m, m != 0.0);
    row += p.jump_groups;
    rest += p.jump_rest;
    if (rest >= p.group) { rest -= p.group; row += 1u; }
#else
    dx[i] = slope;
#end
  }
}
