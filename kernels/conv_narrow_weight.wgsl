// Weight gradient of conv_narrow: part[c, o, j, i] = sum over the (b, t) of chunk c of y[b, t, o] x[b, t s + j d - pad, i]; column_sums adds the chunks.
// Grid: one invocation per (chunk, o, j, i), a chunk being `per` consecutive (b, t). Any adapter.
#include "lib/invocation.wgsl"
struct P { n: u32, rows: i32, L: i32, ci: i32, T: i32, co: i32, K: i32, stride: i32, padding: i32, dilation: i32, per: i32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> part: array<f32>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = i32(invocation(wg, local));
  if (e >= i32(p.n)) { return; }
  let i = e % p.ci;
  let j = (e / p.ci) % p.K;
  let o = (e / (p.ci * p.K)) % p.co;
  let first = (e / (p.ci * p.K * p.co)) * p.per;
  let shift = j * p.dilation - p.padding;
  var b = first / p.T;
  var t = first % p.T;
  var sum = 0.0;
  for (var row = first; row < min(first + p.per, p.rows); row++) {
    let at = t * p.stride + shift;
    let v = x[(b * p.L + clamp(at, 0, p.L - 1)) * p.ci + i];
    sum = fma(y[row * p.co + o], select(0.0, v, at >= 0 && at < p.L), sum);
    t++;
    if (t == p.T) { t = 0; b++; }
  }
  part[e] = sum;
}
