// First step of the log-mel spectrum: windows each frame and folds it twice, so that the N-point DFT of a real frame is four products of a quarter of
// its length (N = n_fft, H = N / 2, Q = N / 4; w the window, symmetric about H; x a frame):
//   c[n] = w[n] (x[n] + x[N - n]), s[n] = w[n] (x[n] - x[N - n])                        cosine and sine parts, n = 0 .. H
//   row 0  c[n] + c[H - n]   cosine, even bins       row 1  c[n] - c[H - n]   cosine, odd bins       n = 0 .. Q
//   row 2  s[n] - s[H - n]   sine, even bins         row 3  s[n] + s[H - n]   sine, odd bins
// folded [frames, 4, depth], depth = Q + 1 rounded up to vec4s. windows [2, depth]: w[n] and w[H - n]; each folds to itself at one end, where its
// table holds a half or a zero, and both are 0 past Q. It also shortens the sums, which costs fewer digits in quiet bins than a direct product.
// Grid: one invocation per (frame, vec4 of n). Any adapter.
#include "lib/invocation.wgsl"
struct P { n: u32, first: u32, row_frames: u32, length: u32, hop: u32, n_fft: i32, depth: u32 }
// n: invocations; first: frame of the first one; row_frames: frames a row; length: samples a row; depth in vec4s
@group(0) @binding(0) var<storage, read> wave: array<f32>;
@group(0) @binding(1) var<storage, read> windows: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> folded: array<vec4f>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = invocation(wg, local);
  if (e >= p.n) { return; }
  let i = e % p.depth;
  let frame = p.first + e / p.depth;
  let start = i32((frame / p.row_frames) * p.length + (frame % p.row_frames) * p.hop);
  let last = p.n_fft - 1;
  let half = p.n_fft / 2;
#for j in 0..4
  let n${j} = 4 * i32(i) + ${j};
  let a${j} = wave[start + min(n${j}, last)];
  let b${j} = wave[start + clamp(p.n_fft - n${j}, 0, last)];
  let c${j} = wave[start + clamp(half - n${j}, 0, last)];
  let d${j} = wave[start + min(half + n${j}, last)];
#end
  let a = vec4f(a0, a1, a2, a3);
  let b = vec4f(b0, b1, b2, b3);
  let c = vec4f(c0, c1, c2, c3);
  let d = vec4f(d0, d1, d2, d3);
  let w0 = windows[i];
  let w1 = windows[p.depth + i];
  let at = (e / p.depth) * 4u * p.depth + i;
  folded[at] = w0 * (a + b) + w1 * (c + d);
  folded[at + p.depth] = w0 * (a + b) - w1 * (c + d);
  folded[at + 2u * p.depth] = w0 * (a - b) - w1 * (c - d);
  folded[at + 3u * p.depth] = w0 * (a - b) + w1 * (c - d);
}
