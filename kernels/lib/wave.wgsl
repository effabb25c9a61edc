// What conv_wave and conv_wave_weight share: a convolution of one input channel, x [B, L] and w [co, K], walked in blocks of NB steps t.
// The samples of a block are spread over the lanes of a subgroup, in vec4s where VEC, and subgroupBroadcast hands each to all lanes. So that lane and
// component are constants, K, the stride S and PHASE (samples between the start of the vec4 that a block begins in and the block's first) are.
// row: vec4s (VEC) or samples from one b to the next. first: where block 0 begins, in the same unit. run: steps a workgroup walks, whole blocks. taps: K.
#include "lib/image.wgsl"
struct P { L: i32, row: i32, first: i32, T: i32, co: i32, run: i32, taps: i32 }
@group(0) @binding(0) var<uniform> p: P;
#if X_IMAGE
@group(0) @binding(1) var x: texture_storage_2d<rgba32float, read>;
#else
#if VEC
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
#else
@group(0) @binding(1) var<storage, read> x: array<f32>;
#end
#end

// Vec4 (or sample) number i of the waveform that starts at `row`; 0 outside its L samples.
#if VEC
fn samples(row: i32, i: i32, L: i32) -> vec4f {
  let at = row + clamp(i, 0, (L - 1) >> 2u);
  let positions = vec4i(4 * i) + vec4i(0, 1, 2, 3);
  let inside = (positions >= vec4i(0)) & (positions < vec4i(L));
#if X_IMAGE
  return select(vec4f(), textureLoad(x, texel(u32(at))), inside);
#else
  return select(vec4f(), x[at], inside);
#end
}
#else
fn samples(row: i32, i: i32, L: i32) -> f32 {
  return select(0.0, x[row + clamp(i, 0, L - 1)], i >= 0 && i < L);
}
#end
