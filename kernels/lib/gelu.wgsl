// GELU in its erf form, x * Phi(x), and its derivative Phi(x) + x * phi(x).
// Phi(-|x|) = exp(-x^2 / 2) * poly(t) / 2 with t = 1 / (1 + 0.3275911 |x| / sqrt 2): Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
// Forward and backward share the formula, so that the gradient is that of what was computed.
struct Gelu { value: vec4f, slope: vec4f }

fn gelu_parts(x: vec4f) -> Gelu {
  let a = min(abs(x), vec4f(12.0));              // keeps t finite; beyond 12 the tail is 0 in f32
  let t = 1.0 / fma(a, vec4f(0.23164189), vec4f(1.0));
  let e = select(exp(-0.5 * a * a), vec4f(), abs(x) > vec4f(12.0));
  let tail = e * t * (0.127414796 + t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145))));
  let phi = select(vec4f(1.0) - tail, tail, x < vec4f(0.0));
  return Gelu(x * phi, phi + clamp(x, vec4f(-12.0), vec4f(12.0)) * e * 0.3989422804);
}
fn gelu(x: vec4f) -> vec4f { return gelu_parts(x).value; }
fn gelu_slope(x: vec4f) -> vec4f { return gelu_parts(x).slope; }
