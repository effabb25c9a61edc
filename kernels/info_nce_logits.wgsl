// Masked InfoNCE, step 1: logits[n, j] = cosine(c[anchor n], z[candidate j of n]) / temperature, without ever storing the gathered vectors.
// Candidate 0 is the positive, z at the anchor's own frame; 1 .. K are its negatives. Columns K + 1 .. stride - 1 are filled with -1e30.
// An invocation owns J candidates of one anchor, so that every load of c serves J products. Both families.
// c, z [frames, width] in vec4s where VEC; inverse [2 frames]: of c's norms, then of z's (row_inverse_norms.wgsl).
// IMAGE: c and z are read from their images (src/plan/images.ts). Grid: anchors * stride / J invocations.
#include "lib/invocation.wgsl"
#include "lib/image.wgsl"
#include "lib/vec.wgsl"
struct P { anchors: u32, frames: u32, negatives: u32, width: u32, stride: u32, inverse_temperature: f32 }
#if IMAGE
@group(0) @binding(0) var c: texture_storage_2d<rgba32float, read>;
@group(0) @binding(1) var z: texture_storage_2d<rgba32float, read>;
fn c_at(i: u32) -> V { return textureLoad(c, texel(i)); }
fn z_at(i: u32) -> V { return textureLoad(z, texel(i)); }
#else
@group(0) @binding(0) var<storage, read> c: array<V>;
@group(0) @binding(1) var<storage, read> z: array<V>;
fn c_at(i: u32) -> V { return c[i]; }
fn z_at(i: u32) -> V { return z[i]; }
#end
@group(0) @binding(2) var<storage, read> inverse: array<f32>;
@group(0) @binding(3) var<storage, read> anchor: array<i32>;
@group(0) @binding(4) var<storage, read> negatives: array<i32>;
@group(0) @binding(5) var<storage, read_write> logits: array<vec4f>;
@group(0) @binding(6) var<uniform> p: P;

fn candidate(n: u32, j: u32) -> u32 {
  if (j == 0u || j > p.negatives) { return u32(anchor[n]); }
  return u32(negatives[n * p.negatives + j - 1u]);
}

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  let groups = p.stride / ${J}u;
  let n = id / groups;
  if (n >= p.anchors) { return; }
  let first = (id % groups) * ${J}u;
  let frame = u32(anchor[n]);
  let width = p.width;
  let row = frame * width;
#for j in 0..J
  let f${j} = candidate(n, first + ${j}u);
  let z${j} = f${j} * width;
  var a${j} = V();
#end
  for (var i = 0u; i < width; i++) {
    let v = c_at(row + i);
#for j in 0..J
    a${j} = fma(v, z_at(z${j} + i), a${j});
#end
  }
  let own = inverse[frame];
  let at = (n * p.stride + first) / 4u;
#for q in 0..J / 4
  let j${q} = vec4u(first + ${4 * q}u) + vec4u(0u, 1u, 2u, 3u);
  let dots${q} = vec4f(across(a${4 * q}), across(a${4 * q + 1}), across(a${4 * q + 2}), across(a${4 * q + 3}));
  let other${q} = vec4f(inverse[p.frames + f${4 * q}], inverse[p.frames + f${4 * q + 1}], inverse[p.frames + f${4 * q + 2}], inverse[p.frames + f${4 * q + 3}]);
  logits[at + ${q}u] = select(dots${q} * (own * other${q}) * p.inverse_temperature, vec4f(-1e30), j${q} > vec4u(p.negatives));
#end
}
