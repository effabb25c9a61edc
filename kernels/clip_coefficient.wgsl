// coefficient[0] = unscale min(1, max_norm / (unscale norm + 1e-6)), or -1 when the norm is not finite, which tells adamw.wgsl to leave everything as it is.
// unscale undoes a loss scale: the gradients, and so their norm, are 1 / unscale times their true size. Powers of two make that exact.
// The test is on the bits: a WGSL compiler may assume that NaN and infinity do not occur. Grid: 1. Any adapter.
struct P { max_norm: f32, unscale: f32 }
@group(0) @binding(0) var<storage, read> norm: array<u32>;
@group(0) @binding(1) var<storage, read_write> coefficient: array<f32>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(1)
fn main() {
  let bits = norm[0];
  if ((bits & 0x7f800000u) == 0x7f800000u) {
    coefficient[0] = -1.0;
  } else {
    coefficient[0] = p.unscale * min(1.0, p.max_norm / (p.unscale * bitcast<f32>(bits) + 1e-6));
  }
}
