//! What makes a credential this profile's and no other's: whom it asks, as whom, for what. Not what
//! it proves that with.

use aws_lc_rs::digest;

use super::{Method, Profile};

impl Profile {
    /// Names whom the profile asks, as whom and for what, over restarts; None: it asks nobody, so
    /// that nothing has to be kept of it. Two profiles with the same name and identity are the same
    /// in the sense of [`Profile::same_identity`].
    #[must_use]
    pub fn identity(&self) -> Option<[u8; 32]> {
        let Method::OAuth2(oauth2) = &self.method else {
            return None;
        };
        let mut context = digest::Context::new(&digest::SHA256);
        // Each piece with its length, so that nothing can be moved from one into the next.
        let mut piece = |text: &str| {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        };
        let lists = [&oauth2.scopes, &oauth2.resource];
        let maybe = [&self.target, &oauth2.audience];
        piece(&format!("{:?}", oauth2.idp.endpoint));
        piece(&format!("{:?}", oauth2.grant));
        piece(&oauth2.client_id);
        piece(oauth2.client_auth.as_str());
        for text in maybe {
            piece(if text.is_some() { "some" } else { "none" });
            piece(text.as_deref().unwrap_or_default());
        }
        for list in lists {
            piece(&list.len().to_string());
            list.iter().for_each(|text| piece(text));
        }
        for (name, value) in &oauth2.extra {
            piece(name);
            piece(value);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Some(out)
    }
}
