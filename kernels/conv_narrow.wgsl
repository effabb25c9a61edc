// Convolution with a handful of channels, directly: where a matrix product would fill a few columns of its tile (the sample decoder's last layers).
// x [B, L, ci], w [co, K, ci], y [B, T, co], no groups.
//   MODE 0  y[b, t, o] = bias[o] + sum over (j, i) of x[b, t s + j d - pad, i] w[o, j, i]       an invocation: four t of one (b, o)
//   MODE 1  x[b, q, i] = bias[i] + sum over (j, o) of y[b, (q + pad - j) / s, o] w[o, j, i]     an invocation: one (b, q, i); d = 1 (or s = 1)
// Grid: one invocation per output (per four in MODE 0). Any adapter. A step of nano on SwiftShader: 2.7 s with matrix products here, 1.1 s so (CPU time over two cores).
#include "lib/invocation.wgsl"
struct P { n: u32, L: i32, ci: i32, T: i32, co: i32, K: i32, stride: i32, padding: i32, dilation: i32 }
@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<uniform> p: P;
#if MODE == 0
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
#else
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read> y: array<f32>;
#end
#if BIAS
@group(0) @binding(4) var<storage, read> bias: array<f32>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = i32(invocation(wg, local));
  if (e >= i32(p.n)) { return; }
#if MODE == 0
  let quads = (p.T + 3) / 4;
  let o = e % p.co;
  let t = 4 * ((e / p.co) % quads);
  let b = e / (p.co * quads);
  let start = t * p.stride - p.padding;
  var sum = vec4f();
  for (var j = 0; j < p.K; j++) {
    let at = vec4i(start + j * p.dilation) + p.stride * vec4i(0, 1, 2, 3);
    let row = (vec4i(b * p.L) + clamp(at, vec4i(0), vec4i(p.L - 1))) * p.ci;
    let inside = select(vec4f(), vec4f(1.0), (at >= vec4i(0)) & (at < vec4i(p.L)));
    let wj = (o * p.K + j) * p.ci;
    for (var i = 0; i < p.ci; i++) {
      let v = vec4f(x[row.x + i], x[row.y + i], x[row.z + i], x[row.w + i]);
      sum = fma(inside * v, vec4f(w[wj + i]), sum);
    }
  }
#if BIAS
  sum += bias[o];
#end
  let out = (b * p.T + t) * p.co + o;
#for r in 0..4
  if (t + ${r} < p.T) { y[out + ${r} * p.co] = sum[${r}]; }
#end
#else
  let i = e % p.ci;
  let q = (e / p.ci) % p.L + p.padding;
  let b = e / (p.ci * p.L);
#if BIAS
  var sum = bias[i];
#else
  var sum = 0.0;
#end
  for (var j = q % p.stride; j < p.K; j += p.stride) {
    let ahead = q - j * p.dilation;
    let t = ahead / p.stride;
    if (ahead >= 0 && t < p.T) {
      let row = (b * p.T + t) * p.co;
      for (var o = 0; o < p.co; o++) { sum = fma(y[row + o], w[(o * p.K + j) * p.ci + i], sum); }
    }
  }
  x[e] = sum;
#end
}
