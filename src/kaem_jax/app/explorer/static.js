// Answers with what src/kaem_jax/contrib/explorer/static.py computed beforehand.

function makeSource(data) {
  const known = new Map(data.moves.map((picture) => [String(picture.latent), picture]));
  const view = (cluster) => data.views[cluster ?? "all"];
  return {
    curves: async (cluster) => view(cluster).curves,
    decode: async (latent) => known.get(String(latent)),
    draw: async ({ cluster }) => view(cluster).draws,
  };
}
