// Element-wise activations. F 0: GELU (erf form), 1: ReLU, 2: tanh, 3: sigmoid.
// BACK 0: y = f(v). BACK 1: y = dy f'(.) where v holds x for GELU and f(x) for the others.
// Grid: one invocation per vec4 (the last one may reach into the padding). Any adapter; bound by loads and stores.
#include "lib/gelu.wgsl"
#include "lib/invocation.wgsl"
struct P { n: u32 }
@group(0) @binding(0) var<storage, read> v: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(2) var<uniform> p: P;
#if BACK
@group(0) @binding(3) var<storage, read> dy: array<vec4f>;
#end

#if F == 2
// The built-in tanh is NaN for large arguments on SwiftShader and loses digits near 0 elsewhere: Cephes' polynomial below 0.625, exp above.
fn tanh_exact(x: vec4f) -> vec4f {
  let a = min(abs(x), vec4f(15.0));
  let z = a * a;
  let q = (((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1) * z - 3.33332819422e-1;
  let large = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
  return sign(x) * select(large, a + a * z * q, a < vec4f(0.625));
}
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(wg, local);
  if (i >= p.n) { return; }
  let a = v[i];
#if BACK
#if F == 0
  y[i] = dy[i] * gelu_slope(a);
#end
#if F == 1
  y[i] = select(vec4f(), dy[i], a > vec4f());
#end
#if F == 2
  y[i] = dy[i] * (1.0 - a * a);
#end
#if F == 3
  y[i] = dy[i] * (a * (1.0 - a));
#end
#else
#if F == 0
  y[i] = gelu(a);
#end
#if F == 1
  y[i] = max(a, vec4f());
#end
#if F == 2
  y[i] = tanh_exact(a);
#end
#if F == 3
  y[i] = 1.0 / (1.0 + exp(-clamp(a, vec4f(-87.0), vec4f(87.0))));
#end
#end
}
