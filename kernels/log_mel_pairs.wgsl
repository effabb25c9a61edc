// Log-mel frames 2 t and 2 t + 1 side by side for frame t. mel [R, M, D]; frame m of row r exists when m < M and, with RAGGED, m < mel_frames[r].
//   MODE 0  stats [R, 3, D]: mean, standard deviation s and 1 / (s + 1e-5) of each row and bin over the frames that exist (Welford, population)
//   MODE 1  features [R, T, 4 D] = (mel / 4 of both frames, normalised of both), pairs [R, T, 2 D] = normalised, present [R, T, 2] = 1 where the frame
//           exists (times frame_mask [R, T] with MASK). What does not exist is 0.
// Grid: one invocation per (row, T of bins) in MODE 0, per (row, t, half, T of bins) in MODE 1. Any adapter. VEC 1: D is a multiple of 4.
#include "lib/invocation.wgsl"
#if VEC
alias T = vec4f;
#else
alias T = f32;
#end
struct P { n: u32, width: u32, mel_frames: u32, frames: u32 }   // n: invocations; width: Ts in D; mel_frames: M; frames: T
@group(0) @binding(0) var<storage, read> mel: array<T>;
@group(0) @binding(1) var<uniform> p: P;
#if RAGGED
@group(0) @binding(2) var<storage, read> real_frames: array<i32>;
#end
#if MODE == 0
@group(0) @binding(3) var<storage, read_write> stats: array<T>;
#else
@group(0) @binding(3) var<storage, read> stats: array<T>;
@group(0) @binding(4) var<storage, read_write> features: array<T>;
@group(0) @binding(5) var<storage, read_write> pairs: array<T>;
@group(0) @binding(6) var<storage, read_write> present: array<f32>;
#if MASK
@group(0) @binding(7) var<storage, read> frame_mask: array<f32>;
#end
#end

fn frames_of(row: u32) -> u32 {
#if RAGGED
  return min(u32(max(real_frames[row], 0)), p.mel_frames);
#else
  return p.mel_frames;
#end
}

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = invocation(wg, local);
  if (e >= p.n) { return; }
  let column = e % p.width;
#if MODE == 0
  let row = e / p.width;
  let count = frames_of(row);
  var mean = T();
  var m2 = T();
  for (var m = 0u; m < count; m++) {
    let v = mel[(row * p.mel_frames + m) * p.width + column];
    let delta = v - mean;
    mean += delta * (1.0 / f32(m + 1u));
    m2 += delta * (v - mean);
  }
  let at = row * 3u * p.width + column;
  let deviation = sqrt(m2 / f32(max(count, 1u)));
  stats[at] = mean;
  stats[at + p.width] = deviation;
  stats[at + 2u * p.width] = 1.0 / (deviation + 1e-5);
#else
  let pair = e / p.width;           // (row, t, half)
  let frame = pair / 2u;            // (row, t)
  let half = pair % 2u;
  let row = frame / p.frames;
  let m = 2u * (frame % p.frames) + half;
  let exists = m < frames_of(row);
  let v = mel[(row * p.mel_frames + min(m, p.mel_frames - 1u)) * p.width + column];
  let s = row * 3u * p.width + column;
  let normalised = select(T(), (v - stats[s]) * stats[s + 2u * p.width], exists);
  let at = frame * 4u * p.width + half * p.width + column;
  features[at] = select(T(), 0.25 * v, exists);
  features[at + 2u * p.width] = normalised;
  pairs[e] = normalised;
  if (column == 0u) {
#if MASK
    present[pair] = select(0.0, frame_mask[frame], exists);
#else
    present[pair] = select(0.0, 1.0, exists);
#end
  }
#end
}
