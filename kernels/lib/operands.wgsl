// Operands of matrix products on CPU adapters, in vec4s from their start: from storage, or from their images (src/plan/images.ts), which on lavapipe takes half
// the time of a storage load.
#include "lib/image.wgsl"
#if A_VEC
fn a_at(i: i32) -> vec4f {
#if A_IMAGE
  return textureLoad(a, texel(u32(i)));
#else
  return a[i];
#end
}
#end
#if B_VEC
fn b_at(i: i32) -> vec4f {
#if B_IMAGE
  return textureLoad(b, texel(u32(i)));
#else
  return b[i];
#end
}
#end
