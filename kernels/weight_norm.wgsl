// Weight norm with one norm per tap (PyTorch's dim = 2): w = v g / |v|, v and w [Cout, K, C], g [K], |v| over all but the tap. With r[k] = |v[., k, .]|:
//   MODE 0  part[block, k] = sum of a b over a block of output channels (a = b = v forwards; a = dw, b = v backwards)
//   MODE 1  norms[k] = (|v|, 0) from the partial sums;  MODE 2  norms[k] = (|v|, sum of dw v) and dg[k] = sum of dw v / |v|
//   MODE 3  w = v g / |v|;  MODE 4  dv = g / |v| (dw - v sum(dw v) / |v|^2)
// Grid: one invocation per (block, tap) in MODE 0, per tap in 1 and 2, per T in 3 and 4. Any adapter. VEC 1: C is a multiple of 4.
#include "lib/invocation.wgsl"
#if VEC
alias T = vec4f;
fn total(v: T) -> f32 { return (v.x + v.y) + (v.z + v.w); }
#else
alias T = f32;
fn total(v: T) -> f32 { return v; }
#end
struct P { n: u32, taps: u32, width: u32, rows: u32, block: u32, blocks: u32 }   // n: invocations; width: Ts in a tap; rows: Cout; block: rows of a block
@group(0) @binding(0) var<uniform> p: P;
#if MODE == 0
@group(0) @binding(1) var<storage, read> a: array<T>;
@group(0) @binding(2) var<storage, read> b: array<T>;
@group(0) @binding(3) var<storage, read_write> part: array<f32>;
#end
#if MODE == 1
@group(0) @binding(1) var<storage, read> part: array<f32>;
@group(0) @binding(2) var<storage, read_write> norms: array<vec2f>;
#end
#if MODE == 2
@group(0) @binding(1) var<storage, read> part: array<f32>;
@group(0) @binding(2) var<storage, read> saved: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> norms: array<vec2f>;
@group(0) @binding(4) var<storage, read_write> dg: array<f32>;
#end
#if MODE >= 3
@group(0) @binding(1) var<storage, read> v: array<T>;
@group(0) @binding(2) var<storage, read> g: array<f32>;
@group(0) @binding(3) var<storage, read> norms: array<vec2f>;
@group(0) @binding(4) var<storage, read_write> out: array<T>;
#end
#if MODE == 4
@group(0) @binding(5) var<storage, read> dw: array<T>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = invocation(wg, local);
  if (e >= p.n) { return; }
#if MODE == 0
  let tap = e % p.taps;
  let start = (e / p.taps) * p.block;
  let end = min(start + p.block, p.rows);
  var sum = T();
  for (var row = start; row < end; row++) {
    let at = (row * p.taps + tap) * p.width;
    for (var i = 0u; i < p.width; i++) { sum += a[at + i] * b[at + i]; }
  }
  part[e] = total(sum);
#end
#if MODE == 1 || MODE == 2
  var sum = 0.0;
  for (var i = 0u; i < p.blocks; i++) { sum += part[i * p.taps + e]; }
#if MODE == 1
  norms[e] = vec2f(sqrt(sum), 0.0);
#else
  let r = saved[e].x;
  norms[e] = vec2f(r, sum);
  dg[e] = sum / r;
#end
#end
#if MODE >= 3
  let tap = (e / p.width) % p.taps;
  let r = norms[tap];
  let scale = g[tap] / r.x;
#if MODE == 3
  out[e] = v[e] * scale;
#else
  out[e] = (dw[e] - v[e] * (r.y / r.x / r.x)) * scale;
#end
#end
}
