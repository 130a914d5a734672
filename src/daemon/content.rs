//! Small blobs of the daemon's own content store.

use tonic::Status;

use super::Daemon;
use super::connection::origin;
use crate::protocol::proto::content::ReadContentRequest;
use crate::protocol::proto::content::content_client::ContentClient;

impl Daemon {
    /// Reads a blob that the daemon holds, of at most `limit` bytes.
    ///
    /// # Errors
    /// Where it does not hold it, or it is longer.
    pub async fn content(&self, digest: &str, limit: usize) -> Result<Vec<u8>, Status> {
        let mut content = ContentClient::with_origin(self.connection().clone(), origin());
        let request = ReadContentRequest {
            digest: digest.to_owned(),
            ..Default::default()
        };
        let mut chunks = content.read(request).await?.into_inner();
        let mut blob = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            if blob.len() + chunk.data.len() > limit {
                return Err(Status::out_of_range(format!(
                    "{digest} has more than {limit} bytes"
                )));
            }
            blob.extend_from_slice(&chunk.data);
        }
        Ok(blob)
    }
}
