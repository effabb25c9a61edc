// Operands of matrix products on CPU adapters, in vec4s from their start: from storage, or from their images (src/plan/images.ts), which on lavapipe takes half
// the time of a storage load. An operand whose rows are walked down is read from an image in panels where there is one (IMAGE = 2).
//   x_at(i)                  vec4 number i
//   x_walk(i), x_down(n)     a walk that starts at vec4 number i and goes down in steps of n vec4s, a whole number of rows of the tensor
//   x_below(walk, k, n)       the vec4 after k steps of x_down(n)
#include "lib/image.wgsl"
#if A_VEC
#if A_IMAGE == 2
fn a_walk(i: i32) -> vec3i { return panel(i, p.a_width, p.a_blocks); }
fn a_down(n: i32) -> i32 { return n / p.a_width; }
fn a_below(walk: vec3i, k: i32, n: i32) -> vec4f {
  let row = walk.z + k * n;
  return textureLoad(a, vec2i(walk.x, row & 1023), walk.y + (row >> 10u));
}
#else
fn a_at(i: i32) -> vec4f {
#if A_IMAGE
  return textureLoad(a, texel(u32(i)));
#else
  return a[i];
#end
}
fn a_walk(i: i32) -> i32 { return i; }
fn a_down(n: i32) -> i32 { return n; }
fn a_below(walk: i32, k: i32, n: i32) -> vec4f { return a_at(walk + k * n); }
#end
#end
#if B_VEC
#if B_IMAGE == 2
fn b_walk(i: i32) -> vec3i { return panel(i, p.b_width, p.b_blocks); }
fn b_down(n: i32) -> i32 { return n / p.b_width; }
fn b_below(walk: vec3i, k: i32, n: i32) -> vec4f {
  let row = walk.z + k * n;
  return textureLoad(b, vec2i(walk.x, row & 1023), walk.y + (row >> 10u));
}
#else
fn b_at(i: i32) -> vec4f {
#if B_IMAGE
  return textureLoad(b, texel(u32(i)));
#else
  return b[i];
#end
}
fn b_walk(i: i32) -> i32 { return i; }
fn b_down(n: i32) -> i32 { return n; }
fn b_below(walk: i32, k: i32, n: i32) -> vec4f { return b_at(walk + k * n); }
#end
#end
