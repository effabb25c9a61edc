// Group norm over channels-last x [B, T, C] in G groups of C / G channels, optionally followed by GELU: statistics over all T steps and the channels of
// a group. With xh = (x - shift - centre) rstd, u = xh weight + bias, dz = dy (gelu'(u)):
//   MODE 0  mean and sum of squared deviations of x - shift over a block of steps, per channel (Welford); group_norm_combine.wgsl merges them
//   MODE 1  y = u (GELU'd)
//   MODE 2  sums of dz and dz xh over a block of steps, per channel; group_norm_combine.wgsl and column sums follow
//   MODE 3  dx = rstd (dz weight - mean(dz weight) - xh mean(dz weight xh)), means over the group from `sums`
// stats [B, G] = (shift, centre, rstd, 0): shift is the group's first element, so that a large mean costs no digits.
// Grid: one invocation per (batch, block, channel or vec4 of channels), channels innermost; what belongs to a channel is loaded once a block.
// Any adapter. VEC 1: C is a multiple of 4; a vec4 may straddle groups.
#include "lib/gelu.wgsl"
#include "lib/invocation.wgsl"
#if VEC
alias T = vec4f;
#else
alias T = f32;
#end
struct P { n: u32, width: u32, blocks: u32, steps: u32, block: u32, groups: u32, channels: u32, count: f32 }
// n: invocations; width: Ts in a step; block: steps in a block; channels: C / G; count: elements of a group
@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<uniform> p: P;
#if MODE == 0
@group(0) @binding(2) var<storage, read_write> part_mean: array<T>;
@group(0) @binding(3) var<storage, read_write> part_m2: array<T>;
#else
@group(0) @binding(2) var<storage, read> stats: array<vec4f>;
@group(0) @binding(3) var<storage, read> weight: array<T>;
@group(0) @binding(4) var<storage, read> bias: array<T>;
#end
#if MODE == 1
@group(0) @binding(5) var<storage, read_write> y: array<T>;
#end
#if MODE >= 2
@group(0) @binding(5) var<storage, read> dy: array<T>;
#end
#if MODE == 2
@group(0) @binding(6) var<storage, read_write> part_dz: array<T>;
@group(0) @binding(7) var<storage, read_write> part_dzx: array<T>;
#end
#if MODE == 3
@group(0) @binding(6) var<storage, read> sums: array<vec2f>;
@group(0) @binding(7) var<storage, read_write> dx: array<T>;
#end

#if MODE == 0
// First element of the group that channel c of batch b is in.
fn shift_of(b: u32, c: u32) -> f32 {
  let first = (c / p.channels) * p.channels;
#if VEC
  return x[b * p.steps * p.width + (first >> 2u)][first & 3u];
#else
  return x[b * p.steps * p.width + first];
#end
}
#end
#if MODE >= 2
fn slope(u: T) -> T {
#if ACT && VEC
  return gelu_slope(u);
#end
#if ACT && !VEC
  return gelu_slope(vec4f(u)).x;
#end
#if !ACT
  return T(1.0);
#end
}
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = invocation(wg, local);
  if (e >= p.n) { return; }
  let column = e % p.width;
  let b = e / (p.width * p.blocks);
  let start = ((e / p.width) % p.blocks) * p.block;
  let end = min(start + p.block, p.steps);
  let base = b * p.steps * p.width + column;
#if MODE == 0
#if VEC
  let shift = vec4f(shift_of(b, 4u * column), shift_of(b, 4u * column + 1u), shift_of(b, 4u * column + 2u), shift_of(b, 4u * column + 3u));
#else
  let shift = shift_of(b, column);
#end
  var mean = T();
  var m2 = T();
  var count = 0.0;
  for (var t = start; t < end; t++) {
    count += 1.0;
    let d = x[base + t * p.width] - shift;
    let delta = d - mean;
    mean += delta * (1.0 / count);
    m2 += delta * (d - mean);
  }
  part_mean[e] = mean;
  part_m2[e] = m2;
#else
#if VEC
  let group = vec4u(b * p.groups) + (vec4u(4u * column) + vec4u(0u, 1u, 2u, 3u)) / vec4u(p.channels);
#for j in 0..4
  let s${j} = stats[group[${j}]];
#end
  let shift = vec4f(s0.x, s1.x, s2.x, s3.x);
  let centre = vec4f(s0.y, s1.y, s2.y, s3.y);
  let rstd = vec4f(s0.z, s1.z, s2.z, s3.z);
#else
  let group = b * p.groups + column / p.channels;
  let shift = stats[group].x;
  let centre = stats[group].y;
  let rstd = stats[group].z;
#end
  let w = weight[column];
  let offset = bias[column];
#if MODE == 2
  var sum_dz = T();
  var sum_dzx = T();
#end
#if MODE == 3
#if VEC
#for j in 0..4
  let g${j} = sums[group[${j}]] / p.count;
#end
  let mean_g = vec4f(g0.x, g1.x, g2.x, g3.x);
  let mean_gx = vec4f(g0.y, g1.y, g2.y, g3.y);
#else
  let mean_g = sums[group].x / p.count;
  let mean_gx = sums[group].y / p.count;
#end
#end
  for (var t = start; t < end; t++) {
    let at = base + t * p.width;
    let xh = (x[at] - shift - centre) * rstd;
#if MODE == 1
    let u = xh * w + offset;
#if ACT && VEC
    y[at] = gelu(u);
#end
#if ACT && !VEC
    y[at] = gelu(vec4f(u)).x;
#end
#if !ACT
    y[at] = u;
#end
#else
    let dz = dy[at] * slope(xh * w + offset);
#if MODE == 2
    sum_dz += dz;
    sum_dzx += dz * xh;
#else
    dx[at] = (dz * w - mean_g - xh * mean_gx) * rstd;
#end
#end
  }
#if MODE == 2
  part_dz[e] = sum_dz;
  part_dzx[e] = sum_dzx;
#end
#end
}
