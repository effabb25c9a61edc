// Gradients of layer norm's weight and bias, summed over blocks of rows: part_weight[block] = sum dz xh, part_bias[block] = sum dz with
// dz = dy (gelu'(xh weight + bias)). A column sum over the blocks follows. Deterministic: no atomics, fixed order.
// Grid: one invocation per (block, column), columns innermost. Any adapter. stats as written by layer_norm.wgsl.
#include "lib/gelu.wgsl"
#include "lib/invocation.wgsl"
#if VEC
alias T = vec4f;
#else
alias T = f32;
#end
struct P { rows: u32, width: u32, block: u32, n: u32 }   // width: Ts in a row; block: rows in a block; n: invocations
@group(0) @binding(0) var<storage, read> dy: array<T>;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> stats: array<vec4f>;
@group(0) @binding(3) var<uniform> p: P;
#if WEIGHT
@group(0) @binding(4) var<storage, read> weight: array<T>;
@group(0) @binding(5) var<storage, read_write> part_weight: array<T>;
#end
#if BIAS
#if ACT
@group(0) @binding(6) var<storage, read> bias: array<T>;
#end
@group(0) @binding(7) var<storage, read_write> part_bias: array<T>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = invocation(wg, local);
  if (e >= p.n) { return; }
  let column = e % p.width;
  let start = (e / p.width) * p.block;
  let end = min(start + p.block, p.rows);
#if ACT && WEIGHT
  let w = weight[column];
#end
#if ACT && BIAS
  let b = bias[column];
#end
  var sum_weight = T();
  var sum_bias = T();
  for (var row = start; row < end; row++) {
    let at = row * p.width + column;
    var dz = dy[at];
#if ACT || WEIGHT
    let s = stats[row];
    let xh = (x[at] - s.x - s.y) * s.z;
#end
#if ACT
    var u = xh;
#if WEIGHT
    u *= w;
#end
#if BIAS
    u += b;
#end
#if VEC
    dz *= gelu_slope(u);
#else
    dz *= gelu_slope(vec4f(u)).x;
#end
#end
#if WEIGHT
    sum_weight += dz * xh;
#end
    sum_bias += dz;
  }
#if WEIGHT
  part_weight[e] = sum_weight;
#end
#if BIAS
  part_bias[e] = sum_bias;
#end
}
