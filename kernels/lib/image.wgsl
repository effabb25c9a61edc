// Where vec4 number i of a tensor lies in its image (src/plan/images.ts).
fn texel(i: u32) -> vec2u { return vec2u(i & 1023u, i >> 10u); }
// The same in panels, where 8 vec4s of a row lie beside the same 8 of the next: column of a texel, first layer of its panel, row. `width`: vec4s in a row of
// the tensor; `blocks`: layers of 1024 rows that a panel has.
fn panel(i: i32, width: i32, blocks: i32) -> vec3i {
  let column = i % width;
  return vec3i(column & 7, (column >> 3u) * blocks, i / width);
}
