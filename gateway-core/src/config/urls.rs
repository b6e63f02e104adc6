//! URLs in serde's eyes: a list of texts. For `with = "urls"`.

use serde::{Deserialize, Deserializer, Serializer, de::Error};
use url::Url;

pub(super) fn serialize<S: Serializer>(urls: &[Url], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(urls.iter().map(Url::as_str))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Url>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| Url::parse(text).map_err(D::Error::custom)).collect()
}
