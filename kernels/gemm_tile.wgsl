// Matrix product for GPUs, right on every adapter: a 64 x 64 tile per workgroup of 256, K in steps of 16 through workgroup memory, 4 x 4 per invocation.
// Invocation (x, y) owns rows 4 y .. 4 y + 3 and columns 4 x .. 4 x + 3. Grid: (ceil(N / 64), ceil(M / 64), z), see m_blocks.
// On CPU adapters every barrier turns the kernel into a coroutine: 7 times slower there than gemm_subgroup.
#include "lib/gelu.wgsl"
#include "lib/gemm.wgsl"

// Tiles are stored k-major: tile[k][row]. The odd pitch keeps neighbouring k in different banks.
const PITCH = 68u;
var<workgroup> tile_a: array<f32, 1088>;
var<workgroup> tile_b: array<f32, 1088>;

#if A_VEC
fn scalar_a(at: i32) -> f32 { return a[at >> 2u][at & 3]; }
#else
fn scalar_a(at: i32) -> f32 { return a[at]; }
#end
#if B_VEC
fn scalar_b(at: i32) -> f32 { return b[at >> 2u][at & 3]; }
#else
fn scalar_b(at: i32) -> f32 { return b[at]; }
#end
const UA = ${1 + 3 * A_VEC};   // elements per unit of A's strides
const UB = ${1 + 3 * B_VEC};

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) index: u32) {
  let z = i32(w.z) / p.m_blocks;
  let z0 = z / p.nz1;
  let z1 = z % p.nz1;
  let row_tile = (i32(w.z) % p.m_blocks) * 65535 + i32(w.y);
  let m0 = row_tile * 64;
  let n0 = i32(w.x) * 64;
  let x = index % 16u;
  let y = index / 16u;
  let k1_end = (p.K1 - z1 * p.k1_z + p.k1_div - 1) / p.k1_div;
  let a_base = (p.a_off + z0 * p.a_z0 + z1 * p.a_z1) * UA;
  let b_base = (p.b_off + z0 * p.b_z0 + z1 * p.b_z1) * UB;
#for i in 0..4
  var c${i} = vec4f();
#end
  for (var k1 = 0; k1 < k1_end; k1++) {
    for (var k0 = 0; k0 < p.K2; k0 += 16) {
      // 1024 values of each tile, four per invocation; neighbours in memory are loaded by neighbouring invocations.
#for s in 0..4
      {
        let e = index + ${s * 256}u;
#if MODE == 2
        let row = i32(e % 64u);
        let k = i32(e / 64u);
        let in_k = k0 + k < p.K2;
        let n = n0 + row;
        let at = p.b_pos0 + (n / p.b_inner) * p.b_tap + (k0 + k) * p.b_step;
        var va = 0.0;
        var vb = 0.0;
        if (in_k && m0 + row < p.M) { va = scalar_a(a_base + (k1 * p.a_outer + (k0 + k) * p.a_row) * UA + m0 + row); }
        if (in_k && n < p.N && at >= 0 && at < p.b_len) { vb = scalar_b(b_base + (k1 * p.b_k1 + at * p.b_row) * UB + n % p.b_inner); }
        tile_a[u32(k) * PITCH + u32(row)] = va;
        tile_b[u32(k) * PITCH + u32(row)] = vb;
#else
        let row = i32(e / 16u);
        let k = i32(e % 16u);
        let m = m0 + row;
        let at = p.a_pos0 + (m % p.m_inner) * p.a_step + k1 * p.a_tap;
        var va = 0.0;
        if (m < p.M && k0 + k < p.K2 && at >= 0 && at < p.a_len) { va = scalar_a(a_base + ((m / p.m_inner) * p.a_outer + at * p.a_row) * UA + k0 + k); }
        tile_a[u32(k) * PITCH + u32(row)] = va;
        var vb = 0.0;
#if MODE == 0
        if (n0 + row < p.N && k0 + k < p.K2) { vb = scalar_b(b_base + (k1 * p.b_k1 + (n0 + row) * p.b_row) * UB + k0 + k); }
        tile_b[u32(k) * PITCH + u32(row)] = vb;
#else
        let col = i32(e % 64u);
        let kb = i32(e / 64u);
        if (n0 + col < p.N && k0 + kb < p.K2) { vb = scalar_b(b_base + (k1 * p.b_k1 + (k0 + kb) * p.b_row) * UB + n0 + col); }
        tile_b[u32(kb) * PITCH + u32(col)] = vb;
#end
#end
      }
#end
      workgroupBarrier();
      for (var k = 0u; k < 16u; k++) {
        let ra = k * PITCH + 4u * y;
        let rb = k * PITCH + 4u * x;
        let vb = vec4f(tile_b[rb], tile_b[rb + 1u], tile_b[rb + 2u], tile_b[rb + 3u]);
#for i in 0..4
        c${i} = fma(vec4f(tile_a[ra + ${i}u]), vb, c${i});
#end
      }
      workgroupBarrier();
    }
  }
  let c_base = p.c_off + z0 * p.c_z0 + z1 * p.c_z1;
  let n = n0 + 4 * i32(x);
  let offset = bias_at(n, z0);
#for i in 0..4
  {
    let m = m0 + 4 * i32(y) + ${i};
    let at = p.c_pos0 + (m % p.m_inner) * p.c_step + z1 * p.c_zpos;
    if (n < p.N && m < p.M && at >= 0 && at < p.c_len) { store(c_base + (m / p.m_inner) * p.c_outer + at * p.c_row, n, c${i}, offset); }
  }
#end
}
