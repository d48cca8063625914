//! What is asked of containerd itself: a container's image, an image's content (`containerd.services.*.v1`).

use crate::wire::message;

message! {
    /// `containers.v1.GetContainerResponse`.
    ContainerAnswer {
        1 container: Option<ContainerRecord>,
    }
}

message! {
    /// `containers.v1.Container`.
    ContainerRecord {
        1 id: String,
        3 image: String,
    }
}

message! {
    /// `images.v1.GetImageRequest`.
    ImageName {
        1 name: String,
    }
}

message! {
    /// `images.v1.GetImageResponse`.
    ImageAnswer {
        1 image: Option<ImageRecord>,
    }
}

message! {
    /// `images.v1.Image`.
    ImageRecord {
        1 name: String,
        3 target: Option<Described>,
    }
}

message! {
    /// `types.Descriptor`.
    Described {
        1 media_type: String,
        2 digest: String,
        3 size: i64,
    }
}

message! {
    /// `content.v1.ReadContentRequest`.
    ContentRequest {
        1 digest: String,
    }
}

message! {
    /// `content.v1.ReadContentResponse`.
    ContentPart {
        1 offset: i64,
        2 data: Vec<u8>,
    }
}
