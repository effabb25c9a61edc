// Gradient of layer norm with respect to x. With xh = (x - mean) rstd, u = xh weight + bias, g = dy (gelu'(u)) weight:
//   dx = rstd (g - mean(g) - xh mean(g xh))
// stats as written by layer_norm.wgsl. Grid: overRows of rows. Any adapter. With GELU or a weight, g waits in dx between the two passes: a load and a
// store are cheaper than a second exp, and every element is read again by the invocation that wrote it.
#include "lib/gelu.wgsl"
#include "lib/rows.wgsl"
#if VEC
alias T = vec4f;
fn total(v: T) -> f32 { return (v.x + v.y) + (v.z + v.w); }
#else
alias T = f32;
fn total(v: T) -> f32 { return v; }
#end
struct P { rows: u32, width: u32 }   // width: Ts in a row
@group(0) @binding(0) var<storage, read> dy: array<T>;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> stats: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> dx: array<T>;
@group(0) @binding(4) var<uniform> p: P;
#if WEIGHT
@group(0) @binding(5) var<storage, read> weight: array<T>;
#end
#if BIAS && ACT
@group(0) @binding(6) var<storage, read> bias: array<T>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(wg, local);
  let lane = lane_of(local);
  if (row >= p.rows) { return; }
  let at = row * p.width;
  let s = stats[row];
  var sum_g = T();
  var sum_gx = T();
  for (var i = lane; i < p.width; i += LANES) {
    let xh = (x[at + i] - s.x - s.y) * s.z;
    var g = dy[at + i];
#if WEIGHT
    let w = weight[i];
#end
#if ACT
    var u = xh;
#if WEIGHT
    u *= w;
#end
#if BIAS
    u += bias[i];
#end
#if VEC
    g *= gelu_slope(u);
#else
    g *= gelu_slope(vec4f(u)).x;
#end
#end
#if WEIGHT
    g *= w;
#end
    sum_g += g;
    sum_gx += g * xh;
#if WEIGHT || ACT
    dx[at + i] = g;
#end
  }
  let n = f32(p.width) * f32(${1 + 3 * VEC});
  let mean_g = row_sum(total(sum_g), lane) / n;
  let mean_gx = row_sum(total(sum_gx), lane) / n;
  for (var i = lane; i < p.width; i += LANES) {
#if WEIGHT || ACT
    let g = dx[at + i];
#else
    let g = dy[at + i];
#end
    dx[at + i] = (g - mean_g - (x[at + i] - s.x - s.y) * (s.z * mean_gx)) * s.z;
  }
}
