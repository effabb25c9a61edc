// Embeddings over HTTP (Node 20 or newer):
//
//   node serve.mjs --port 8080 --checkpoint mgf-tiny.safetensors
//   curl --data-binary @speech.wav 'http://127.0.0.1:8080/embed?pool=mean'
//
// POST /embed   a WAV, FLAC, MP3, Ogg Vorbis or Opus file; `layer` and `pool` (none, mean) as query. Answers { frames, width, layer, data }.
// GET  /health  200 while requests are taken, 503 while the service stops or after the device was lost.
//
// What waits is embedded together: requests of one kind that arrive while the device works become its next batch. When too many are there, further ones are refused
// at once (503, Retry-After) instead of making all of them slow. SIGTERM and SIGINT let waiting requests finish.
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { decodeAudio, MGF, MGFError, toMono16k } from 'mgf-webgpu';

const LIMITS = { bodyBytes: 20e6, seconds: 120, requests: 64, batch: 16 };

/** Starts the service. `limits` overrides LIMITS; `port` 0 takes a free one. */
export async function serve({ port = 8080, checkpoint, adapter, limits = {} } = {}) {
  const { bodyBytes, seconds, requests, batch } = { ...LIMITS, ...limits };
  const mgf = await MGF.load(checkpoint, { adapter });
  const waiting = [];
  let working = false, trouble = null, inside = 0;
  void mgf.lost.then((error) => { trouble ??= error.message; });

  /** Embeds what waits, batch after batch. */
  async function work() {
    if (working) return;
    working = true;
    while (waiting.length > 0) {
      const kind = waiting[0].kind, jobs = waiting.filter((job) => job.kind === kind).slice(0, batch);
      for (const job of jobs) waiting.splice(waiting.indexOf(job), 1);
      try {
        const embeddings = await mgf.embed(jobs.map((job) => job.pcm), jobs[0].options);
        jobs.forEach((job, i) => job.resolve(embeddings[i]));
      } catch (error) {
        for (const job of jobs) job.reject(error);
      }
    }
    working = false;
  }

  const embed = (pcm, options) => new Promise((resolve, reject) => {
    waiting.push({ pcm, options, kind: JSON.stringify(options), resolve, reject });
    void work();
  });

  async function body(request) {
    const chunks = [];
    let size = 0;
    for await (const chunk of request) {
      size += chunk.length;
      if (size > bodyBytes) throw Object.assign(new Error(`the file is larger than ${bodyBytes / 1e6} MB`), { status: 413 });
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  async function answer(request, url) {
    if (url.pathname === '/health') return [trouble ? 503 : 200, { status: trouble ?? 'ok', adapter: mgf.adapter, requests: inside }];
    if (url.pathname !== '/embed') return [404, { error: 'POST /embed or GET /health' }];
    if (request.method !== 'POST') return [405, { error: 'POST a recording' }];
    if (trouble) return [503, { error: trouble }];
    // Counted from their arrival: what is still uploading or decoding takes memory too.
    if (inside >= requests) return [503, { error: 'too many requests are waiting; try again soon' }, { 'retry-after': '1' }];
    inside++;
    try {
      return await answerEmbed(request, url);
    } finally {
      inside--;
    }
  }

  async function answerEmbed(request, url) {
    const layer = url.searchParams.get('layer'), pool = url.searchParams.get('pool') ?? 'none';
    const pcm = await toMono16k(await decodeAudio(await body(request), 'the recording'), 'the recording');
    if (pcm.length > seconds * 16000) return [413, { error: `the recording is longer than ${seconds} s` }];
    const { data, ...rest } = await embed(pcm, { pool, ...(layer !== null && { layer: Number(layer) }) });
    return [200, { ...rest, data: [...data] }];
  }

  const server = createServer((request, response) => {
    answer(request, new URL(request.url, 'http://service'))
      .catch((error) => {
        // What the sender can mend is the sender's error; everything else is ours, and its details stay here.
        if (error instanceof MGFError && ['audio', 'usage'].includes(error.code)) return [422, { error: error.message }];
        if (error.status) return [error.status, { error: error.message }, { connection: 'close' }];
        console.error(error);
        return [500, { error: 'the recording could not be embedded' }];
      })
      .then(([status, json, headers = {}]) => response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(json)));
  });
  server.requestTimeout = 30_000;
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, resolve));

  return {
    port: server.address().port,
    adapter: mgf.adapter,
    /** Takes no more requests, answers those that are there, frees the device. */
    async stop() {
      trouble ??= 'stopping';
      await new Promise((resolve) => { server.close(resolve); server.closeIdleConnections(); });
      mgf.dispose();
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({ options: { port: { type: 'string', default: '8080' }, checkpoint: { type: 'string' }, adapter: { type: 'string' } } });
  const service = await serve({ ...values, port: Number(values.port) });
  console.log(`http://127.0.0.1:${service.port} on ${service.adapter}`);
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => void service.stop());
}
