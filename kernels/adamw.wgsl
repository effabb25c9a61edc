// AdamW in place over a flat buffer (Loshchilov and Hutter 2019, as in PyTorch). With g = coefficient * grad:
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   param = param (1 - lr decay) - lr / bias1 * m / (sqrt(v) / sqrt(bias2) + eps),  bias = 1 - beta^step
// Elements before decay_count decay, the rest do not. A negative coefficient says that the gradient is not finite: nothing is changed.
// Grid: one invocation per vec4. Any adapter; bound by 4 loads and 3 stores a vec4.
#include "lib/invocation.wgsl"
struct P {
  n: u32, first: u32,                // vec4s here; element index of the first one in the whole buffer
  decay_count: u32,
  lr: f32, decay: f32, beta1: f32, rest1: f32, beta2: f32, rest2: f32, eps: f32, bias1: f32, bias2: f32,
}
@group(0) @binding(0) var<storage, read_write> param: array<vec4f>;
@group(0) @binding(1) var<storage, read> grad: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> exp_avg: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> exp_avg_sq: array<vec4f>;
@group(0) @binding(4) var<uniform> p: P;
#if CLIP
@group(0) @binding(5) var<storage, read> coefficient: array<f32>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(wg, local);
  if (i >= p.n) { return; }
  var g = grad[i];
#if CLIP
  let c = coefficient[0];
  if (c < 0.0) { return; }
  g *= c;
#end
  let m = p.beta1 * exp_avg[i] + p.rest1 * g;
  let v = p.beta2 * exp_avg_sq[i] + p.rest2 * (g * g);
  exp_avg[i] = m;
  exp_avg_sq[i] = v;
  let decays = vec4u(p.first + 4u * i) + vec4u(0u, 1u, 2u, 3u) < vec4u(p.decay_count);
  let kept = select(vec4f(1.0), vec4f(1.0 - p.lr * p.decay), decays);
  param[i] = param[i] * kept - (p.lr / p.bias1) * (m / (sqrt(v) * (1.0 / sqrt(p.bias2)) + p.eps));
}
