// Layer norm over the last axis: y = (x - mean) / sqrt(var + eps) * weight + bias, optionally followed by GELU. x, y [rows, D]; weight, bias [D].
// stats [rows] = (shift, centre, rstd, 0): the row's first element, its mean minus the shift, 1 / sqrt(var + eps). Working on x - shift keeps all digits
// when the mean is large; mean and variance come from one pass (Welford per vec4 component, merged as in Chan, Golub, LeVeque 1979).
// Grid: overRows of rows. Any adapter; layer_norm_subgroup.wgsl is faster where it applies (2 to 3 times on lavapipe). VEC 1: D is a multiple of 4.
#include "lib/gelu.wgsl"
#include "lib/rows.wgsl"
#if VEC
alias T = vec4f;
fn total(v: T) -> f32 { return (v.x + v.y) + (v.z + v.w); }
fn first(v: T) -> f32 { return v.x; }
#else
alias T = f32;
fn total(v: T) -> f32 { return v; }
fn first(v: T) -> f32 { return v; }
#end
struct P { rows: u32, width: u32, eps: f32 }   // width: Ts in a row
@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read_write> y: array<T>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec4f>;
@group(0) @binding(3) var<uniform> p: P;
#if WEIGHT
@group(0) @binding(4) var<storage, read> weight: array<T>;
#end
#if BIAS
@group(0) @binding(5) var<storage, read> bias: array<T>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(wg, local);
  let lane = lane_of(local);
  if (row >= p.rows) { return; }
  let at = row * p.width;
  let shift = first(x[at]);
  var mean = T();
  var m2 = T();
  var count = 0.0;
  for (var i = lane; i < p.width; i += LANES) {
    count += 1.0;
    let d = x[at + i] - shift;
    let delta = d - mean;
    mean += delta * (1.0 / count);
    m2 += delta * (d - mean);
  }
  let n = f32(p.width) * f32(${1 + 3 * VEC});
  let centre = row_sum(count * total(mean), lane) / n;
  let off = mean - centre;
  let variance = row_sum(total(m2 + off * off * count), lane) / n;
  let rstd = 1.0 / sqrt(variance + p.eps);
  if (lane == 0u) { stats[row] = vec4f(shift, centre, rstd, 0.0); }
  for (var i = lane; i < p.width; i += LANES) {
    var v = (x[at + i] - shift - centre) * rstd;
#if WEIGHT
    v *= weight[i];
#end
#if BIAS
    v += bias[i];
#end
#if ACT
#if VEC
    v = gelu(v);
#else
    v = gelu(vec4f(v)).x;
#end
#end
    y[at + i] = v;
  }
}
