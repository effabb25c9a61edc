// Matrix product with few columns, for CPU adapters: gemm_subgroup with the operands' parts exchanged. Grouped convolutions and narrow layers have 8, 16 or 24
// columns, of which a tile of 4 SG would leave half idle.
//
// A tile is 4 SG rows x TN columns: lane l owns rows l, l + SG, l + 2 SG, l + 3 SG, and accumulator i is column i of those four. Each lane loads its own rows
// of A; B, which is small, is spread over the lanes and subgroupBroadcast hands it to all: 4 + TN / SG vec4 loads for 16 TN multiply-adds per lane.
// Modes 0 (NT) and 1 (NN), whole vec4s only. Grid: (ceil(N / TN), ceil(M / 4 SG), z), see m_blocks. tile_rows: vec4s in a row of the tile.
enable subgroups;
#include "lib/gelu.wgsl"
#include "lib/gemm.wgsl"
#include "lib/operands.wgsl"

@compute @workgroup_size(${SG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let l = i32(local.x);
  let z = i32(w.z) / p.m_blocks;
  let z0 = z / p.nz1;
  let z1 = z % p.nz1;
  let row_tile = (i32(w.z) % p.m_blocks) * 65535 + i32(w.y);
  let m0 = row_tile * ${4 * SG} + l;
  let n0 = i32(w.x) * ${TN};
  let k1_end = (p.K1 - z1 * p.k1_z + p.k1_div - 1) / p.k1_div;
  // Uniforms that loops use are read once: a read of one is a load per lane on lavapipe, in every iteration.
  let N = p.N;
  let K2 = p.K2;
  let k4_end = (K2 + 3) >> 2u;
  let a_len = p.a_len;
  let a_row = p.a_row;
  let a_tap = p.a_tap;
  let b_k1 = p.b_k1;
  let b_row = p.b_row;
  let a_base = p.a_off + z0 * p.a_z0 + z1 * p.a_z1;
  let b_base = p.b_off + z0 * p.b_z0 + z1 * p.b_z1;
#for v in 0..4
  let row${v} = min(m0 + ${v * SG}, p.M - 1);
  let outer${v} = a_base + (row${v} / p.m_inner) * p.a_outer;
  let pos${v} = p.a_pos0 + (row${v} % p.m_inner) * p.a_step;
#end
#for r in 0..TN / SG
#if MODE == 0
  // Lane l holds four k of column l + SG r.
  let start${r} = b_base + min(n0 + l + ${r * SG}, N - 1) * b_row;
#else
  // Lane l holds vec4 number l + SG r of four rows of B, TN / 4 of them a row.
  let kk${r} = (l + ${r * SG}) / ${TN / 4};
  let start${r} = b_base + min((n0 >> 2u) + (l + ${r * SG}) % ${TN / 4}, ((N + 3) >> 2u) - 1);
#end
#end
#for i in 0..TN
  var c${i} = vec4f();
#end
  for (var k1 = 0; k1 < k1_end; k1++) {
#for v in 0..4
    let at${v} = pos${v} + k1 * a_tap;
    let ok${v} = at${v} >= 0 && at${v} < a_len;
    let ra${v} = outer${v} + clamp(at${v}, 0, a_len - 1) * a_row;
#end
    for (var k = 0; k < k4_end; k++) {
      // 0 where the position is padding or, in mode 1, k is past K2.
#if TAIL
      let real = vec4i(4 * k) + vec4i(0, 1, 2, 3) < vec4i(K2);
#end
#for v in 0..4
#if TAIL
      let x${v} = select(vec4f(), a_at(ra${v} + k), real & vec4<bool>(ok${v}));
#else
      let x${v} = select(vec4f(), a_at(ra${v} + k), ok${v});
#end
#end
#for r in 0..TN / SG
#if MODE == 0
      let b${r} = b_at(start${r} + k1 * b_k1 + k);
#else
      let b${r} = b_at(start${r} + k1 * b_k1 + min(4 * k + kk${r}, K2 - 1) * b_row);
#end
#end
#for j in 0..4
      let column${j} = vec4f(x0[${j}], x1[${j}], x2[${j}], x3[${j}]);
#end
#for i in 0..TN
      {
#for j in 0..4
#if MODE == 0
        let q${j} = vec4f(subgroupBroadcast(b${i / SG}[${j}], ${i % SG}u));
#else
        let q${j} = vec4f(subgroupBroadcast(b${(j * (TN / 4) + i / 4) / SG}[${i % 4}], ${(j * (TN / 4) + i / 4) % SG}u));
#end
#end
#for j in 0..4
        c${i} = fma(q${j}, column${j}, c${i});
#end
      }
#end
    }
  }

  let c_base = p.c_off + z0 * p.c_z0 + z1 * p.c_z1;
#for v in 0..4
  let rc${v} = m0 + ${v * SG};
  let cp${v} = p.c_pos0 + (rc${v} % p.m_inner) * p.c_step + z1 * p.c_zpos;
  let to${v} = c_base + (rc${v} / p.m_inner) * p.c_outer + cp${v} * p.c_row;
  let in${v} = rc${v} < p.M && cp${v} >= 0 && cp${v} < p.c_len;
#end
  // A loop whose length the compiler cannot see: unrolled stores would be most of the compile time.
  var columns = array<vec4f, ${TN}>(
#for i in 0..TN
    c${i},
#end
  );
  let tile_rows = p.tile_rows;
  for (var i = 0; i < tile_rows; i++) {
    let n = n0 + 4 * i;
    if (n < N) {
      let offset = bias_at(n, z0);
      let s0 = columns[4 * i];
      let s1 = columns[4 * i + 1];
      let s2 = columns[4 * i + 2];
      let s3 = columns[4 * i + 3];
#for v in 0..4
      if (in${v}) { store(to${v}, n, vec4f(s0[${v}], s1[${v}], s2[${v}], s3[${v}]), offset); }
#end
    }
  }
}
