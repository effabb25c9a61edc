/**
 * Flag values of the WebGPU specification: Dawn for Node offers them as exports, browsers as globals, so the
 * engine has its own.
 */
export const BufferUsage = {
  MAP_READ: 0x1,
  COPY_SRC: 0x4,
  COPY_DST: 0x8,
  UNIFORM: 0x40,
  STORAGE: 0x80,
  QUERY_RESOLVE: 0x200,
} as const;
export const TextureUsage = { COPY_DST: 0x2, STORAGE_BINDING: 0x8 } as const;
export const MapMode = { READ: 0x1 } as const;
export const ShaderStage = { COMPUTE: 0x4 } as const;
