// Last step of the log-mel spectrum: mel[frame, m] = ln(max(floor, sum over bins k of weight[m, k] |X[frame, k]|^2)).
// spectrum [frames, 4, depth]: real part of even and odd bins, imaginary part of even and odd bins. filters [n_mels, 3]: first bin, number of bins, and
// where the filter's weights start. Grid: one invocation per (frame, mel). Any adapter.
#include "lib/invocation.wgsl"
struct P { n: u32, first: u32, mels: u32, depth: u32, floor: f32 }   // n: invocations; first: output index of the first one
@group(0) @binding(0) var<storage, read> spectrum: array<f32>;
@group(0) @binding(1) var<storage, read> filters: array<i32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> mel: array<f32>;
@group(0) @binding(4) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = invocation(wg, local);
  if (e >= p.n) { return; }
  let m = 3u * (e % p.mels);
  let base = (e / p.mels) * 4u * p.depth;
  let first = u32(filters[m]);
  let count = u32(filters[m + 1u]);
  let at = u32(filters[m + 2u]);
  var sum = 0.0;
  for (var i = 0u; i < count; i++) {
    let k = first + i;
    let bin = base + (k & 1u) * p.depth + (k >> 1u);
    let re = spectrum[bin];
    let im = spectrum[bin + 2u * p.depth];
    sum += weights[at + i] * (re * re + im * im);
  }
  mel[p.first + e] = log(max(sum, p.floor));
}
