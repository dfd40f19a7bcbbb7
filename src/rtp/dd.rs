//! Dependency descriptor (AV1 RTP specification 1.0, appendix A): which layers a frame belongs to and what may be
//! switched to, where the payload does not tell. Reading only.
//!
//! Frames name a template; the templates come with key frames and are remembered in a [`Reader`], one per RTP stream.

/// Most templates in a structure: ids have 6 bits.
pub const MAX_TEMPLATES: usize = 64;
/// Most decode targets: 5 bits, plus one.
pub const MAX_TARGETS: usize = 32;

/// What a descriptor says of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// First packet of the frame.
    pub start_of_frame: bool,
    /// Last packet of the frame.
    pub end_of_frame: bool,
    /// Frame counter, wraps at 2^16.
    pub number: u16,
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// The descriptor brought a new template structure: the packet belongs to a key frame.
    pub has_structure: bool,
    /// Some decode target may be switched to at this frame.
    pub is_switch: bool,
    /// Bit per decode target the frame belongs to (indication other than "not present").
    pub present: u32,
    /// Bit per decode target that may be switched to here.
    pub switch: u32,
    /// Bit per decode target nothing of which depends on this frame.
    pub discardable: u32,
    /// Decode targets the sender is producing, if this descriptor says; otherwise the last said ones hold.
    pub active: u32,
    /// Size of the frame's spatial layer in pixels, when the structure has sizes.
    pub size: Option<(u16, u16)>,
}

/// Reads the descriptors of one RTP stream.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Boxed: it is a kilobyte, and most streams have none. Allocated with the first structure, reused for later ones.
    structure: Option<Box<Structure>>,
    active: u32,
}

/// A template structure, as far as layer selection needs it.
#[derive(Clone, Copy, Debug)]
struct Structure {
    id_offset: u8,
    targets: u8,
    chains: u8,
    templates: u8,
    spatial: [u8; MAX_TEMPLATES],
    temporal: [u8; MAX_TEMPLATES],
    /// Two bits per decode target: 0 not present, 1 discardable, 2 switch, 3 required.
    indications: [u64; MAX_TEMPLATES],
    sizes: [Option<(u16, u16)>; MAX_SPATIAL],
}

/// Spatial layers whose size is remembered; ids have no bound but the number of templates.
const MAX_SPATIAL: usize = 8;
const DISCARDABLE: u64 = 1;
const SWITCH: u64 = 2;

impl Reader {
    /// No structure seen yet.
    pub const fn new() -> Self {
        Self { structure: None, active: 0 }
    }

    /// Read one descriptor, the data of its header extension. `None` when it is cut off, or names a template that is
    /// not known (the key frame with the structure is missing); nothing is remembered of it then.
    pub fn read(&mut self, data: &[u8]) -> Option<Frame> {
        let mut bits = Bits::new(data);
        let (start_of_frame, end_of_frame) = (bits.flag()?, bits.flag()?);
        let template_id = bits.byte(6)?;
        let number = u16::try_from(bits.read(16)?).ok()?;
        let extended = if data.len() > 3 { Extended::read(&mut bits)? } else { Extended::default() };
        let mut fresh = None;
        let mut active = self.active;
        if extended.structure {
            let structure = Structure::read(&mut bits)?;
            active = low_bits(structure.targets);
            fresh = Some(structure);
        }
        let structure = fresh.as_ref().or(self.structure.as_deref())?;
        if extended.active_targets {
            active = bits.read(structure.targets.into())?;
        }
        let frame = structure.frame(&mut bits, template_id, &extended)?;
        self.active = active;
        match (fresh, &mut self.structure) {
            (Some(fresh), Some(held)) => **held = fresh,
            (Some(fresh), held) => *held = Some(Box::new(fresh)),
            (None, _) => {}
        }
        Some(Frame { start_of_frame, end_of_frame, number, active, ..frame })
    }
}

/// The optional fields' flags.
#[derive(Default)]
struct Extended {
    structure: bool,
    active_targets: bool,
    custom_indications: bool,
    custom_references: bool,
    custom_chains: bool,
}

impl Extended {
    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        Some(Self {
            structure: bits.flag()?,
            active_targets: bits.flag()?,
            custom_indications: bits.flag()?,
            custom_references: bits.flag()?,
            custom_chains: bits.flag()?,
        })
    }
}

impl Structure {
    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let id_offset = bits.byte(6)?;
        let targets = bits.byte(5)? + 1;
        let mut structure = Self {
            id_offset,
            targets,
            chains: 0,
            templates: 0,
            spatial: [0; MAX_TEMPLATES],
            temporal: [0; MAX_TEMPLATES],
            indications: [0; MAX_TEMPLATES],
            sizes: [None; MAX_SPATIAL],
        };
        let max_spatial = structure.read_layers(bits)?;
        for template in 0..usize::from(structure.templates) {
            *structure.indications.get_mut(template)? = indications(bits, targets)?;
        }
        for _ in 0..structure.templates {
            while bits.flag()? {
                bits.read(4)?;
            }
        }
        structure.read_chains(bits)?;
        if bits.flag()? {
            for layer in 0..=usize::from(max_spatial) {
                let (width, height) = (bits.read(16)? + 1, bits.read(16)? + 1);
                if let Some(size) = structure.sizes.get_mut(layer) {
                    let fit = |pixels| u16::try_from(pixels).unwrap_or(u16::MAX);
                    *size = Some((fit(width), fit(height)));
                }
            }
        }
        Some(structure)
    }

    /// The layers of all templates; gives the highest spatial layer.
    fn read_layers(&mut self, bits: &mut Bits<'_>) -> Option<u8> {
        let (mut spatial, mut temporal) = (0u8, 0u8);
        loop {
            let at = usize::from(self.templates);
            *self.spatial.get_mut(at)? = spatial;
            *self.temporal.get_mut(at)? = temporal;
            self.templates += 1;
            match bits.read(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => return Some(spatial),
            }
        }
    }

    fn read_chains(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        self.chains = bits.non_symmetric(u32::from(self.targets) + 1)?;
        if self.chains == 0 {
            return Some(());
        }
        for _ in 0..self.targets {
            bits.non_symmetric(self.chains.into())?;
        }
        for _ in 0..u32::from(self.templates) * u32::from(self.chains) {
            bits.read(4)?;
        }
        Some(())
    }

    /// What the structure and the frame's own fields say; numbers are put in by the caller.
    fn frame(&self, bits: &mut Bits<'_>, template_id: u8, extended: &Extended) -> Option<Frame> {
        let index = usize::from(template_id.wrapping_sub(self.id_offset) & 0x3f);
        if index >= usize::from(self.templates) {
            return None;
        }
        let spatial = *self.spatial.get(index)?;
        let indications = if extended.custom_indications {
            indications(bits, self.targets)?
        } else {
            *self.indications.get(index)?
        };
        if extended.custom_references {
            loop {
                match bits.read(2)? {
                    0 => break,
                    nibbles => bits.read(nibbles * 4)?,
                };
            }
        }
        if extended.custom_chains {
            for _ in 0..self.chains {
                bits.read(8)?;
            }
        }
        let targets_where = |wanted: &dyn Fn(u64) -> bool| {
            (0..self.targets).filter(|target| wanted((indications >> (2 * target)) & 3)).fold(0, |all, t| all | 1 << t)
        };
        let switch = targets_where(&|indication| indication == SWITCH);
        Some(Frame {
            start_of_frame: false,
            end_of_frame: false,
            number: 0,
            spatial,
            temporal: *self.temporal.get(index)?,
            has_structure: extended.structure,
            is_switch: switch != 0,
            present: targets_where(&|indication| indication != 0),
            switch,
            discardable: targets_where(&|indication| indication == DISCARDABLE),
            active: 0,
            size: self.sizes.get(usize::from(spatial)).copied().flatten(),
        })
    }
}

/// Decode target indications, two bits each, the first target in the lowest bits.
fn indications(bits: &mut Bits<'_>, targets: u8) -> Option<u64> {
    (0..targets).try_fold(0, |all, target| Some(all | u64::from(bits.read(2)?) << (2 * target)))
}

const fn low_bits(count: u8) -> u32 {
    if count >= 32 { u32::MAX } else { (1 << count) - 1 }
}

/// Bits from the most significant on. Every read is checked against the end, which bounds all loops above: each turn
/// takes at least one bit.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Up to 32 bits.
    fn read(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| Some(value << 1 | u32::from(self.flag()?)))
    }

    /// Up to 8 bits.
    fn byte(&mut self, count: u32) -> Option<u8> {
        u8::try_from(self.read(count)?).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte & (0x80 >> (self.at % 8)) != 0;
        self.at += 1;
        Some(bit)
    }

    /// A number below `bound` in non-symmetric coding (AV1 specification, 4.10.7). `bound` is 1 to 33.
    fn non_symmetric(&mut self, bound: u32) -> Option<u8> {
        let width = bound.checked_ilog2()? + 1;
        let short = (1 << width) - bound;
        let value = self.read(width - 1)?;
        let value = if value < short { value } else { (value << 1) - short + self.read(1)? };
        u8::try_from(value).ok()
    }
}

#[cfg(test)]
mod tests;
