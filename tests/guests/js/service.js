// A guest in JavaScript that answers HTTP requests. One instance may answer one request or many: it keeps nothing.
//
//   GET /            a greeting          GET /headers     the request's headers as JSON
//   POST /echo       the body            GET /crash       an exception
addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname, searchParams } = new URL(request.url);
  switch (`${request.method} ${pathname}`) {
    case 'GET /':
      return new Response(`hello from JavaScript, ${searchParams.get('name') ?? 'nobody'}\n`);
    case 'GET /headers':
      return Response.json(Object.fromEntries(request.headers));
    case 'POST /echo':
      return new Response(await request.text(), { status: 201, headers: { 'x-echo': 'yes' } });
    case 'GET /crash':
      throw new Error('as asked');
    default:
      return new Response('no such page\n', { status: 404 });
  }
}
