// Rows of `width` times a vector. MODE 0: y = x scale + shift. MODE 1: y = x scale (x the upstream gradient). MODE 2: y = x factor, element by element
// (the upstream gradient times the input: summed over rows it is the gradient of scale).
// n elements in vec4s where VEC. Grid: one invocation per element. Any adapter; bound by loads and stores.
#include "lib/invocation.wgsl"
#include "lib/vec.wgsl"
struct P { n: u32, width: u32 }
@group(0) @binding(0) var<storage, read> x: array<V>;
#if MODE == 2
@group(0) @binding(1) var<storage, read> factor: array<V>;
#else
@group(0) @binding(1) var<storage, read> scale: array<V>;
#end
#if MODE == 0
@group(0) @binding(2) var<storage, read> shift: array<V>;
#end
@group(0) @binding(3) var<storage, read_write> y: array<V>;
@group(0) @binding(4) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(w, local);
  if (i >= p.n) { return; }
#if MODE == 0
  y[i] = x[i] * scale[i % p.width] + shift[i % p.width];
#end
#if MODE == 1
  y[i] = x[i] * scale[i % p.width];
#end
#if MODE == 2
  y[i] = x[i] * factor[i];
#end
}
