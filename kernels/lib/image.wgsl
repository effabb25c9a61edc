// Where vec4 number i of a tensor lies in its image (src/plan/images.ts).
fn texel(i: u32) -> vec2u { return vec2u(i & 1023u, i >> 10u); }
