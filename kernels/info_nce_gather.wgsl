// Masked InfoNCE backward, step 5: the gradient of every row of c (SIDE 0) or z (SIDE 1), rows that no pair touches included (zero).
//   dx_f = sum over its pairs of b * (the other vector) - (sum of t) x_f / |x_f|^2         no second term where |x_f| < 1e-8, the clamp of the cosine
// z: its pairs are offsets[f] .. of the list. c: its anchors are offsets[F + f] .. of the list, and an anchor's pairs are a row of `pairs`.
// An invocation owns CH vec4s (f32s without VEC) of one row. Both families. IMAGE: the other vectors are read from their image. Grid: frames * ceil(width / CH) invocations. See info_nce_index.wgsl.
#include "lib/invocation.wgsl"
#include "lib/image.wgsl"
#include "lib/vec.wgsl"
struct P { frames: u32, candidates: u32, stride: u32, width: u32 }
@group(0) @binding(0) var<storage, read> offsets: array<u32>;
@group(0) @binding(1) var<storage, read> list: array<vec4u>;
#if SIDE == 0
@group(0) @binding(2) var<storage, read> pairs: array<vec4u>;
#end
@group(0) @binding(3) var<storage, read> own: array<V>;
#if IMAGE
@group(0) @binding(4) var other: texture_storage_2d<rgba32float, read>;
fn other_at(i: u32) -> V { return textureLoad(other, texel(i)); }
#else
@group(0) @binding(4) var<storage, read> other: array<V>;
fn other_at(i: u32) -> V { return other[i]; }
#end
@group(0) @binding(5) var<storage, read> inverse: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<V>;
@group(0) @binding(7) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  let width = p.width;
  let candidates = p.candidates;
  let chunks = (width + ${CH - 1}u) / ${CH}u;
  let frame = id / chunks;
  if (frame >= p.frames) { return; }
  let first = (id % chunks) * ${CH}u;
#for k in 0..CH
  let i${k} = min(first + ${k}u, width - 1u);
  var a${k} = V();
#end
  var t = 0.0;
#if SIDE == 0
  let end = offsets[p.frames + frame + 1u];
  for (var s = offsets[p.frames + frame]; s < end; s++) {
    let row = list[s].x * p.stride;
    for (var j = 0u; j < candidates; j++) {
      let e = pairs[row + j];
#else
  let end = offsets[frame + 1u];
  for (var s = offsets[frame]; s < end; s++) {
    {
      let e = list[s];
#end
      let b = bitcast<f32>(e.y);
      let at = e.x * width;
      t += bitcast<f32>(e.z);
#for k in 0..CH
      a${k} += b * other_at(at + i${k});
#end
    }
  }
#if SIDE == 0
  let norm = inverse[frame];
#else
  let norm = inverse[p.frames + frame];
#end
  let along = select(0.0, t * norm * norm, norm < 9.9e7);
  let row = frame * width;
#for k in 0..CH
  if (first + ${k}u < width) { dx[row + i${k}] = a${k} - along * own[row + i${k}]; }
#end
}
