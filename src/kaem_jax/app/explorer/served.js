// Asks the server from which the page came: an address for each method of a session.

function makeSource() {
  async function post(name, body) {
    let response;
    try {
      response = await fetch(`api/${name}`, { method: "POST", body });
    } catch {
      throw new Error("The server does not answer; start kaem explore again.");
    }
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    return answer;
  }

  const ask = (name, asked) => post(name, JSON.stringify(asked));
  const seed = () => crypto.getRandomValues(new Uint32Array(1))[0];
  return {
    curves: (cluster) => ask("curves", { cluster }),
    decode: async (latent) => (await ask("decode", { latents: [latent] }))[0],
    draw: (asked) => ask("draw", { ...asked, seed: seed() }),
    path: (first, second) => ask("path", { first, second }),
    heldOut: (first) => ask("held_out", { first }),
    readHeldOut: (index) => ask("read_held_out", { index }),
    readFile: (file) => post("upload", file),
  };
}
