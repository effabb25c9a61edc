// Shared by the flash attention kernels: operands, masks, and the two tile products. A workgroup of 16 x LX invocations works on 64 rows of one head
// (rows 4 y .. 4 y + 3 to invocation y) against BC columns at a time. Where the rows are queries the columns are keys, and the other way round.
// Everything shared lies in one array of 14 KiB, used first for what a product of rows and columns reads, then for that product itself and what it weighs.
// Constants: D4 = head size / 4, LX = invocations along the columns, KC = vec4s of the head staged at a time, VR = columns staged at a time when they are
// weighed, BC as above, F16 = stage f16 (twice the columns in the same memory; sums stay f32), MASK, DROP, BACK.
#if DROP
#include "lib/philox.wgsl"
#end
// Bounds of loops, equal to the constants D4, KC, BC and VR: a compiler that knows them unrolls the loops, which takes lavapipe three times as long.
// Strides and offsets in vec4s: batch, head, row. v is laid out like k, the gradients like what they are gradients of, dy like y.
struct P {
  T: u32, S: u32, q_batch: u32, q_head: u32, q_row: u32, q_offset: u32, k_batch: u32, k_head: u32, k_row: u32, k_offset: u32, v_offset: u32,
  y_batch: u32, y_head: u32, y_row: u32, alpha: f32, d4: u32, kc: u32, bc: u32, vr: u32,
#if DROP
  seed_lo: u32, seed_hi: u32, step: u32, node: u32, threshold: u32, scale: f32,
#end
}
@group(0) @binding(0) var<uniform> p: P;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;
@group(0) @binding(2) var<storage, read> k: array<vec4f>;
@group(0) @binding(3) var<storage, read> v: array<vec4f>;
#if MASK
@group(0) @binding(4) var<storage, read> key_mask: array<f32>;
#end
#if BACK
@group(0) @binding(5) var<storage, read> dy: array<vec4f>;
@group(0) @binding(6) var<storage, read> stats: array<vec2f>;   // logsumexp and dot(dy, y) of each query
#end

#if F16
alias Staged = vec4<f16>;
#else
alias Staged = vec4f;
#end
const D4 = ${D4}u;
const KC = ${KC}u;
const VR = ${VR}u;
const LX = ${LX}u;
const THREADS = ${16 * LX}u;
const BR = 64u;
const BC = ${BC}u;
// Odd pitches keep the rows that neighbouring invocations read in different banks.
const PITCH = ${KC + 1 - KC % 2}u;
const WPITCH = 17u;
var<workgroup> stage: array<Staged, ${896 * (1 + F16)}>;

// Which operand to stage.
const Q = 0u;
const K = 1u;
const V = 2u;
const DY = 3u;

// A head: where its operands begin, and its number among all heads.
struct Head { batch: u32, index: u32, q: u32, k: u32, v: u32, y: u32 }
fn head_of(wg: vec3u, heads: u32) -> Head {
  let k0 = wg.z * p.k_batch + wg.y * p.k_head;
  return Head(wg.z, wg.z * heads + wg.y, wg.z * p.q_batch + wg.y * p.q_head + p.q_offset, k0 + p.k_offset, k0 + p.v_offset, wg.z * p.y_batch + wg.y * p.y_head);
}

struct Lane { index: u32, x: u32, y: u32 }
fn lane_of(index: u32) -> Lane { return Lane(index, index % LX, index / LX); }

// Zero past the last row, and past the head where KC does not divide it.
fn operand(which: u32, h: Head, row: u32, c: u32) -> vec4f {
  if (c >= D4) { return vec4f(); }
  if (which == Q && row < p.T) { return q[h.q + row * p.q_row + c]; }
  if (which == K && row < p.S) { return k[h.k + row * p.k_row + c]; }
  if (which == V && row < p.S) { return v[h.v + row * p.k_row + c]; }
#if BACK
  if (which == DY && row < p.T) { return dy[h.y + row * p.y_row + c]; }
#end
  return vec4f();
}

// Column of a tile that lies in a slot: an invocation has the slots x, x + LX, ..., which are four neighbours of the tile (they share a block of random
// numbers) when it has four or more.
fn column_of(slot: u32) -> u32 {
#if BC / LX >= 4
  let j = slot / LX;
  return (j / 4u) * 4u * LX + 4u * (slot % LX) + j % 4u;
#else
  return slot;
#end
}

// Whether the keys `key` .. `key` + 3 are real.
fn real_keys(batch: u32, key: u32) -> vec4<bool> {
  let keys = vec4u(key) + vec4u(0u, 1u, 2u, 3u);
  let inside = keys < vec4u(p.S);
#if MASK
  let at = vec4u(batch * p.S) + min(keys, vec4u(p.S - 1u));
  return inside & (vec4f(key_mask[at.x], key_mask[at.y], key_mask[at.z], key_mask[at.w]) > vec4f(0.5));
#else
  return inside;
#end
}

#if DROP
// Dropout factors of the weights of four neighbouring keys (the first a multiple of 4): those that lib/philox.wgsl gives to scores [B, H, T, S padded to 4].
fn drop_factors(h: Head, query: u32, key: u32) -> vec4f {
  let block = (h.index * p.T + query) * ((p.S + 3u) / 4u) + key / 4u;
  return dropout_scale4(block, vec2u(p.seed_lo, p.seed_hi), p.step, p.node, p.threshold, p.scale);
}
#end

// An invocation's part of a tile: per column, its four rows.
struct Tile {
#for j in 0..BC / LX
  c${j}: vec4f,
#end
}

// Rows of a times columns of b. Everyone must come here; the staged numbers of before may still be in use by others.
fn product(h: Head, l: Lane, a: u32, row0: u32, b: u32, column0: u32) -> Tile {
  var t: Tile;
  for (var first = 0u; first < p.d4; first += KC) {
    workgroupBarrier();
    for (var e = l.index; e < BR * KC; e += THREADS) { stage[(e / KC) * PITCH + e % KC] = Staged(operand(a, h, row0 + e / KC, first + e % KC)); }
    for (var e = l.index; e < BC * KC; e += THREADS) {
      stage[(BR + e / KC) * PITCH + e % KC] = Staged(operand(b, h, column0 + column_of(e / KC), first + e % KC));
    }
    workgroupBarrier();
    for (var c = 0u; c < p.kc; c++) {
#for i in 0..4
      let a${i} = vec4f(stage[(4u * l.y + ${i}u) * PITCH + c]);
#end
      let ax = vec4f(a0.x, a1.x, a2.x, a3.x);
      let ay = vec4f(a0.y, a1.y, a2.y, a3.y);
      let az = vec4f(a0.z, a1.z, a2.z, a3.z);
      let aw = vec4f(a0.w, a1.w, a2.w, a3.w);
#for j in 0..BC / LX
      let b${j} = vec4f(stage[(BR + ${j}u * LX + l.x) * PITCH + c]);
      t.c${j} = fma(aw, vec4f(b${j}.w), fma(az, vec4f(b${j}.z), fma(ay, vec4f(b${j}.y), fma(ax, vec4f(b${j}.x), t.c${j}))));
#end
    }
  }
  return t;
}

// Weights of a tile to workgroup memory. A barrier must lie between the last reading of `stage` and this.
fn share(l: Lane, w: Tile) {
#for j in 0..BC / LX
  stage[(${j}u * LX + l.x) * WPITCH + l.y] = Staged(w.c${j});
#end
}

// An invocation's part of a result [64, D]: rows 4 y + i, vec4s x + LX j.
struct Sum {
#for i in 0..4
#for j in 0..(D4 + LX - 1) / LX
  r${i}_${j}: vec4f,
#end
#end
}

// before + the shared weights times the rows of b that are the tile's columns.
fn weigh(h: Head, l: Lane, before: Sum, b: u32, column0: u32) -> Sum {
  var s = before;
  for (var first = 0u; first < p.bc; first += VR) {
    if (first > 0u) { workgroupBarrier(); }
    for (var e = l.index; e < VR * D4; e += THREADS) {
      stage[BC * WPITCH + e] = Staged(operand(b, h, column0 + column_of(first + e / D4), e % D4));
    }
    workgroupBarrier();
    for (var n = 0u; n < p.vr; n++) {
      let w = vec4f(stage[(first + n) * WPITCH + l.y]);
#for j in 0..(D4 + LX - 1) / LX
      let b${j} = vec4f(stage[BC * WPITCH + n * D4 + min(l.x + ${j}u * LX, D4 - 1u)]);
      s.r0_${j} = fma(vec4f(w.x), b${j}, s.r0_${j});
      s.r1_${j} = fma(vec4f(w.y), b${j}, s.r1_${j});
      s.r2_${j} = fma(vec4f(w.z), b${j}, s.r2_${j});
      s.r3_${j} = fma(vec4f(w.w), b${j}, s.r3_${j});
#end
    }
  }
  return s;
}

// e^x for x <= 0; what comes close to underflowing stays a tiny number.
fn exp_at_most_one(x: vec4f) -> vec4f { return exp(clamp(x, vec4f(-87.0), vec4f(0.0))); }
