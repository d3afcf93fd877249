//! TLS before a server that speaks none.

use std::process::Command;

use anyhow::Result;

use super::certificates::Certificate;
use super::process::Process;
use crate::place::free_port;

/// Takes TLS off connections and passes them on.
const PROGRAM: &str = r#"
import asyncio, ssl, sys
own, behind, certificate, key = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
async def serve(reader, writer):
    back_reader, back_writer = await asyncio.open_connection("127.0.0.1", behind)
    await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(serve, "127.0.0.1", own, ssl=context)
    await server.serve_forever()
asyncio.run(main())
"#;

pub struct Terminator {
    port: u16,
    _process: Process,
}

impl Terminator {
    /// `behind`: the port of the server. It ends when this is dropped.
    pub fn start(behind: u16, certificate: &Certificate) -> Result<Terminator> {
        let port = free_port()?;
        let process = Process::new()?;
        let mut command = Command::new("python3");
        command.args(["-c", PROGRAM, &port.to_string(), &behind.to_string()]);
        command.arg(certificate.file()).arg(certificate.key_file());
        process.start(&command, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Terminator { port, _process: process })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}
