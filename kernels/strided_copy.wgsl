// out[i, j, k] = x[offset + i s0 + j s1 + (k - lo) s2] for lo <= k < hi, else 0. Transposition, slices, and the zero-padded gradient of a slice.
// out is dense [d0, d1, d2]. Grid: one invocation per element. Any adapter.
#include "lib/invocation.wgsl"
struct P { n: u32, d1: u32, d2: u32, offset: i32, s0: i32, s1: i32, s2: i32, lo: i32, hi: i32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = invocation(wg, local);
  if (e >= p.n) { return; }
  let k = i32(e % p.d2);
  let j = i32((e / p.d2) % p.d1);
  let i = i32(e / (p.d2 * p.d1));
  var v = 0.0;
  if (k >= p.lo && k < p.hi) { v = x[p.offset + i * p.s0 + j * p.s1 + (k - p.lo) * p.s2]; }
  out[e] = v;
}
