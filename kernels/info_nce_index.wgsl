// Masked InfoNCE backward, steps 2 to 4: an inverse index by a blocked stable counting sort, so that gradients are gathered without atomics.
// Keys 0 .. F - 1: pairs by their candidate's frame; keys F .. 2F - 1: anchors by their own frame. Anchors of weight 0 are left out.
//   STEP 0  count:  an invocation owns a block of anchors and its row of counts [blocks, keys], and counts its entries per key
//   STEP 1  blocks: an invocation owns a key: exclusive prefix of its counts over the blocks, and their sum in totals [keys]
//   STEP 2  fill:   an invocation owns a block again and writes its entries to list at offsets[key] + counts[block, key]++
// (offsets are the exclusive prefix of totals: exclusive_scan.wgsl.) list entries: pairs (frame of the anchor, b, t, n), anchors (n, 0, 0, 0). Both families.
#include "lib/invocation.wgsl"
struct P { anchors: u32, candidates: u32, stride: u32, frames: u32, blocks: u32, per: u32 }
@group(0) @binding(0) var<storage, read_write> counts: array<u32>;
#if STEP == 1
@group(0) @binding(1) var<storage, read_write> totals: array<u32>;
#else
@group(0) @binding(1) var<storage, read> pairs: array<vec4u>;
@group(0) @binding(2) var<storage, read> stats: array<vec2f>;
#end
#if STEP == 2
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> list: array<vec4u>;
#end
@group(0) @binding(5) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  let keys = 2u * p.frames;
#if STEP == 1
  if (id >= keys) { return; }
  var run = 0u;
  for (var block = 0u; block < p.blocks; block++) {
    let at = block * keys + id;
    let n = counts[at];
    counts[at] = run;
    run += n;
  }
  totals[id] = run;
#else
  if (id >= p.blocks) { return; }
  let mine = id * keys;
#if STEP == 0
  for (var key = 0u; key < keys; key++) { counts[mine + key] = 0u; }
#end
  let end = min(p.anchors, (id + 1u) * p.per);
  for (var n = id * p.per; n < end; n++) {
    if (stats[n].y == 0.0) { continue; }
    let row = n * p.stride;
    let own = p.frames + pairs[row].w;
#if STEP == 0
    counts[mine + own] += 1u;
    for (var j = 0u; j < p.candidates; j++) { counts[mine + pairs[row + j].x] += 1u; }
#else
    list[offsets[own] + counts[mine + own]] = vec4u(n, 0u, 0u, 0u);
    counts[mine + own] += 1u;
    for (var j = 0u; j < p.candidates; j++) {
      let e = pairs[row + j];
      let slot = counts[mine + e.x];
      list[offsets[e.x] + slot] = vec4u(e.w, e.y, e.z, n);
      counts[mine + e.x] = slot + 1u;
    }
#end
  }
#end
}
