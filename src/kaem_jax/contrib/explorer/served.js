// The backend that asks the server from which the page came.

function makeBackend(model) {
  const seed = () => crypto.getRandomValues(new Uint32Array(1))[0];
  const pixels = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  async function post(address, body) {
    let response;
    try {
      response = await fetch(address, { method: "POST", body });
    } catch {
      throw new Error("The server does not answer; start kaem explore again.");
    }
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    return answer;
  }

  async function ask(name, asked) {
    const answer = await post(`api/${name}`, JSON.stringify(asked));
    if (answer.images) answer.images = answer.images.map(pixels);
    return answer;
  }

  return {
    reads: true,
    curves: (cluster) => ask("curves", { cluster }),
    decode: (latents) => ask("decode", { latents }),
    draw: (asked) => ask("draw", { ...asked, seed: seed() }),
    path: (asked) => ask("path", asked),
    heldOut: (first, num) => ask("held_out", { first, num }),
    read: async ({ index, file }) => {
      const asked = file ? post(`api/upload?seed=${seed()}`, file) : ask("read", { index, seed: 0 });
      const answer = await asked;
      return { ...answer, image: pixels(answer.image), reconstruction: pixels(answer.reconstruction) };
    },
  };
}
