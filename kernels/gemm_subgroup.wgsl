// Matrix product for CPU adapters (lavapipe, SwiftShader): one subgroup per workgroup, no workgroup memory, no barrier.
//
// A tile of TM rows x 4 SG columns lives in TM vec4 accumulators per lane; lane l owns columns 4 l .. 4 l + 3. Loads are what costs here (about 6 ns
// per 8 values whatever the pattern), so each lane loads a *different* row of A and subgroupBroadcast spreads it: TM / SG + 4 vec4 loads for 16 TM
// multiply-adds per lane. Four k per iteration; order row -> four chained fma. Unrolling k further overflows the instruction cache.
// Grid: (ceil(N / 4 SG), ceil(M / TM), z), see m_blocks. Rates: kernels/README.md.
// Where a device has no subgroups (LONE; naga has none), lanes load every row themselves: TM + 4 loads for as many multiply-adds, and still no barrier.
#if LONE == 0
enable subgroups;
#end
#include "lib/gelu.wgsl"
#include "lib/gemm.wgsl"
#include "lib/operands.wgsl"

#if MODE < 2
// Four values of A from k2 = 4 k of the row at `base`; 0 where the position is padding or k2 >= K2.
fn load_a(base: i32, ok: bool, k: i32, K2: i32) -> vec4f {
#if A_VEC
  var v = a_at(base + k);
#if TAIL
  v = select(vec4f(), v, vec4i(4 * k) + vec4i(0, 1, 2, 3) < vec4i(K2));
#end
#else
  let last = K2 - 1 - 4 * k;
  let at = base + 4 * k;
  var v = vec4f(a[at], a[at + min(1, last)], a[at + min(2, last)], a[at + min(3, last)]);
  v = select(vec4f(), v, vec4i(0, 1, 2, 3) <= vec4i(last));
#end
  return select(vec4f(), v, ok);
}
#end

#if MODE == 0
fn load_b(base: i32, k: i32, K2: i32) -> vec4f {
#if B_VEC
  let v = b_at(base + k);
#if TAIL
  return select(vec4f(), v, vec4i(4 * k) + vec4i(0, 1, 2, 3) < vec4i(K2));
#else
  return v;
#end
#else
  let last = K2 - 1 - 4 * k;
  let at = base + 4 * k;
  let v = vec4f(b[at], b[at + min(1, last)], b[at + min(2, last)], b[at + min(3, last)]);
  return select(vec4f(), v, vec4i(0, 1, 2, 3) <= vec4i(last));
#end
}
#end

@compute @workgroup_size(${SG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let l = i32(local.x);
  let z = i32(w.z) / p.m_blocks;
  let z0 = z / p.nz1;
  let z1 = z % p.nz1;
  let row_tile = (i32(w.z) % p.m_blocks) * 65535 + i32(w.y);
  let m0 = row_tile * ${TM};
  let n = i32(w.x) * ${4 * SG} + 4 * l;
  let nc = min(n, (p.N - 1) & -4);
  let k1_end = (p.K1 - z1 * p.k1_z + p.k1_div - 1) / p.k1_div;
  // Uniforms that loops use are read once: a read of one is a load per lane on lavapipe, in every iteration.
  let N = p.N;
  let K2 = p.K2;
  let k4_end = (K2 + 3) >> 2u;
  let a_len = p.a_len;
#if MODE == 2 && A_VEC
  let a_row = a_down(p.a_row);
#else
  let a_row = p.a_row;
#end
  let a_tap = p.a_tap;
  let b_k1 = p.b_k1;
#if MODE > 0 && B_VEC
  let b_row = b_down(p.b_row);
#else
  let b_row = p.b_row;
#end
#if MODE == 2
  let a_outer = p.a_outer;
  let b_len = p.b_len;
  let b_step = p.b_step;
#end
  let a_base = p.a_off + z0 * p.a_z0 + z1 * p.a_z1;
  let b_base = p.b_off + z0 * p.b_z0 + z1 * p.b_z1;
#for i in 0..TM
  var c${i} = vec4f();
#end

#if MODE < 2
#for r in 0..LOADS
#if LONE
  let row${r} = min(m0 + ${r}, p.M - 1);
#else
  let row${r} = min(m0 + ${r * SG} + l, p.M - 1);
#end
  let outer${r} = a_base + (row${r} / p.m_inner) * p.a_outer;
  let pos${r} = p.a_pos0 + (row${r} % p.m_inner) * p.a_step;
#end
  for (var k1 = 0; k1 < k1_end; k1++) {
#for r in 0..LOADS
    let at${r} = pos${r} + k1 * a_tap;
    let ok${r} = at${r} >= 0 && at${r} < a_len;
    let ra${r} = outer${r} + clamp(at${r}, 0, a_len - 1) * a_row;
#end
#if MODE == 0
#for v in 0..4
    let rb${v} = b_base + k1 * b_k1 + min(n + ${v}, N - 1) * b_row;
#end
#else
#if B_VEC
    let rb = b_walk(b_base + k1 * b_k1 + (nc >> 2u));
#else
    let rb = b_base + k1 * b_k1 + nc;
#end
#end
    for (var k = 0; k < k4_end; k++) {
#for r in 0..LOADS
      let a${r} = load_a(ra${r}, ok${r}, k, K2);
#end
#if MODE == 0
#for v in 0..4
      let v${v} = load_b(rb${v}, k, K2);
#end
#for j in 0..4
      let b${j} = vec4f(v0[${j}], v1[${j}], v2[${j}], v3[${j}]);
#end
#else
#for j in 0..4
#if TAIL
      let k${j} = min(4 * k + ${j}, K2 - 1);
#else
      let k${j} = 4 * k + ${j};
#end
#if B_VEC
      let b${j} = b_below(rb, k${j}, b_row);
#else
      let kb${j} = rb + k${j} * b_row;
      let b${j} = vec4f(b[kb${j}], b[kb${j} + 1], b[kb${j} + 2], b[kb${j} + 3]);
#end
#end
#end
#for i in 0..TM
      {
#for j in 0..4
#if LONE
        let q${j} = vec4f(a${i}[${j}]);
#else
        let q${j} = vec4f(subgroupBroadcast(a${i / SG}[${j}], ${i % SG}u));
#end
#end
#for j in 0..4
        c${i} = fma(q${j}, b${j}, c${i});
#end
      }
#end
    }
  }
#else
  // TN: lane l holds rows m0 + 4 l .. + 3 of one k; row i comes from lane i / 4, component i % 4. Without subgroups, group i / 4 of every lane's own.
#for g in 0..GROUPS
#if LONE
  let m_${g} = min(m0 + ${4 * g}, (p.M - 1) & -4);
#else
  let m_${g} = min(m0 + 4 * l, (p.M - 1) & -4);
#end
#if A_VEC
  let am_${g} = a_base + (m_${g} >> 2u);
#else
  let am_${g} = a_base + m_${g};
#end
#end
#if B_VEC
  let bn = b_base + ((nc % p.b_inner) >> 2u);
  let pos0 = p.b_pos0 + (nc / p.b_inner) * p.b_tap;
#else
  // Four neighbouring columns may belong to different taps.
  let cols = min(vec4i(nc) + vec4i(0, 1, 2, 3), vec4i(p.N - 1));
  let bn = vec4i(b_base) + cols % p.b_inner;
  let pos0 = vec4i(p.b_pos0) + (cols / p.b_inner) * p.b_tap;
#end
  for (var k1 = 0; k1 < k1_end; k1++) {
#for g in 0..GROUPS
#if A_VEC
    let ra_${g} = a_walk(am_${g} + k1 * a_outer);
#else
    let ra_${g} = am_${g} + k1 * a_outer;
#end
#end
#if B_VEC
    let rb = b_walk(bn + k1 * b_k1);
#else
    let rb = bn + k1 * b_k1;
#end
    for (var k = 0; k < K2; k += 4) {
#for j in 0..4
      let k${j} = min(k + ${j}, K2 - 1);
      let in${j} = k + ${j} < K2;
#for g in 0..GROUPS
#if A_VEC
      let a${j}_${g} = a_below(ra_${g}, k${j}, a_row);
#else
      let ka${j}_${g} = ra_${g} + k${j} * a_row;
      let a${j}_${g} = vec4f(a[ka${j}_${g}], a[ka${j}_${g} + 1], a[ka${j}_${g} + 2], a[ka${j}_${g} + 3]);
#end
#end
#if POSITIONS
      let at${j} = pos0 + k${j} * b_step;
#end
#if B_VEC
#if POSITIONS
      let b${j} = select(vec4f(), b_below(rb, clamp(at${j}, 0, b_len - 1), b_row), in${j} && at${j} >= 0 && at${j} < b_len);
#else
      let b${j} = select(vec4f(), b_below(rb, k${j}, b_row), in${j});
#end
#else
      let kb${j} = rb + clamp(at${j}, vec4i(0), vec4i(b_len - 1)) * b_row;
      let b${j} = select(vec4f(), vec4f(b[kb${j}.x], b[kb${j}.y], b[kb${j}.z], b[kb${j}.w]), vec4<bool>(in${j}) & (at${j} >= vec4i(0)) & (at${j} < vec4i(b_len)));
#end
#end
#for i in 0..TM
      {
#for j in 0..4
#if LONE
        let q${j} = vec4f(a${j}_${i / 4}[${i % 4}]);
#else
        let q${j} = vec4f(subgroupBroadcast(a${j}_0[${i % 4}], ${i / 4}u));
#end
#end
#for j in 0..4
        c${i} = fma(q${j}, b${j}, c${i});
#end
      }
#end
    }
  }
#end

  // Each lane works out where TM / SG rows of C start: an integer division per row is dear.
  let c_base = p.c_off + z0 * p.c_z0 + z1 * p.c_z1;
#if LONE == 0
#for r in 0..TM / SG
  let rc${r} = m0 + ${r * SG} + l;
  let cp${r} = p.c_pos0 + (rc${r} % p.m_inner) * p.c_step + z1 * p.c_zpos;
  let start${r} = select(-1, c_base + (rc${r} / p.m_inner) * p.c_outer + cp${r} * p.c_row, rc${r} < p.M && cp${r} >= 0 && cp${r} < p.c_len);
#end
#end
  // A loop over the rows whose length the compiler cannot see: unrolled stores would be most of the kernel's compile time (3 s against 1.2 s).
  var rows = array<vec4f, ${TM}>(
#for i in 0..TM
    c${i},
#end
  );
  let offset = bias_at(n, z0);
  let tile_rows = p.tile_rows;
  for (var i = 0; i < tile_rows; i++) {
#if LONE
    let rc0 = m0 + i;
    let cp0 = p.c_pos0 + (rc0 % p.m_inner) * p.c_step + z1 * p.c_zpos;
    let row = select(-1, c_base + (rc0 / p.m_inner) * p.c_outer + cp0 * p.c_row, rc0 < p.M && cp0 >= 0 && cp0 < p.c_len);
#else
#for r in 0..TM / SG
    let t${r} = subgroupShuffle(start${r}, u32(i) % ${SG}u);
#end
    var row = t0;
#for r in 1..TM / SG
    row = select(row, t${r}, i >= ${r * SG});
#end
#end
    if (n < N && row >= 0) { store(row, n, rows[i], offset); }
  }
}
