//! From an address to a connection that knows who we are.

use std::{io, sync::Arc, time::Duration};

use redis::RedisConnectionInfo;
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time};
use tokio_rustls::TlsConnector;

use super::{
    address::Address,
    fault::Fault,
    line::{Line, Shared},
};
use crate::cluster::backplane::Away;

/// See the [module](self).
pub(super) struct Dialer {
    pub(super) tls: Option<Tls>,
    pub(super) patience: Duration,
}

/// How TLS is spoken.
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    /// Whose certificate it is to be, where that is not the host's.
    pub(super) name: Option<ServerName<'static>>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has_tls = self.tls.is_some();
        f.debug_struct("Dialer").field("tls", &has_tls).field("patience", &self.patience).finish()
    }
}

impl Dialer {
    pub(super) async fn dial(
        &self,
        address: &Address,
        who: &RedisConnectionInfo,
        shared: &Shared,
    ) -> Result<Line, Away> {
        let at: Arc<str> = address.to_string().into();
        let opened = match time::timeout(self.patience, self.open(address, who, shared, &at)).await
        {
            Ok(opened) => opened,
            Err(_) => Err(Fault::Late(self.patience)),
        };
        opened.map_err(|fault| fault.told(&at, who.username().unwrap_or("default")))
    }

    async fn open(
        &self,
        address: &Address,
        who: &RedisConnectionInfo,
        shared: &Shared,
        at: &Arc<str>,
    ) -> Result<Line, Fault> {
        let stream = TcpStream::connect((&*address.host, address.port)).await?;
        stream.set_nodelay(true)?;
        let Some(Tls { connector, name }) = &self.tls else {
            return Line::begin(at, stream, who, shared).await;
        };
        let name = match name {
            Some(name) => name.clone(),
            None => ServerName::try_from(address.host.clone()).map_err(io::Error::other)?,
        };
        let stream = connector.connect(name, stream).await.map_err(Fault::Tls)?;
        Line::begin(at, stream, who, shared).await
    }
}
