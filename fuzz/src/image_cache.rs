//! A definition, and the export of its cache laid over it. The input is a [`World`].

use super::world::{Export, Order, World, platform};
use inlay::build::export::recall::Recall;
use inlay::cache::embed::ImageCache;
use inlay::cache::llb::{Assumptions, Graph, GraphLimits};
use inlay::cache::record::{self, InlineCache, InlineResult, RecordSet, select};

/// Holds the target's properties against one input. False if that has no export: of such there is
/// not much to learn.
pub fn check(bytes: &[u8]) -> bool {
    let world = World::read(bytes);
    let export = world.laid_out();
    let definition = world.definition(Order::Given);
    let exported = export.exported(Order::Given);
    let limits = record::Limits::default();
    let Ok(set) = RecordSet::parse_export(&exported.config, &limits) else {
        let cache = ImageCache::read(Some(&exported), &definition, assumptions());
        assert!(cache.is_err());
        return false;
    };
    let cache = cache(&world, &export, &definition, Order::Given);

    // One build has one cache, in whatever order its parts come.
    let reversed = world.definition(Order::Reversed);
    let again = self::cache(&world, &export, &reversed, Order::Reversed);
    assert_eq!(cache.is_some(), again.is_some());
    let json = |cache: &Option<InlineCache>| {
        let json = cache.as_ref().map(InlineCache::to_json).unwrap_or_default();
        String::from_utf8(json).expect("JSON is text")
    };
    assert_eq!(json(&cache), json(&again));

    check_order(&set);
    let Some(cache) = cache else {
        return true;
    };
    for record in cache.records() {
        match &record.result {
            Some(InlineResult::Layer(top)) => assert!(*top < cache.layers()),
            Some(InlineResult::Chain(chain)) => assert!(chain.iter().all(|&n| n < cache.layers())),
            None => {}
        }
    }
    let image: Vec<_> = (0..cache.layers())
        .map(|n| format!("sha256:{n:064x}").parse().expect("64 digits"))
        .collect();
    let read = InlineCache::decode(&cache.encode(), &image, &limits).expect("read what we wrote");
    let again = select(&read).expect("select what was selected");
    assert_eq!(again.to_json(), cache.to_json());
    true
}

/// All that is done with an export, in an order of its parts.
fn cache(
    world: &World,
    export: &Export<'_>,
    definition: &[u8],
    order: Order,
) -> Option<InlineCache> {
    let exported = export.exported(order);
    let mut cache =
        ImageCache::read(Some(&exported), definition, assumptions()).expect("parsed before");
    if let Some(probe) = cache.probe(definition, "nonce") {
        // Nothing of the build can run for it: it reads sources, and no step.
        let graph =
            Graph::parse(probe.definition(), &GraphLimits::default()).expect("a definition");
        let own = graph.vertices().iter().filter(|op| op.source().is_none());
        let own: Vec<_> = own.collect();
        let (file, merge) = own.split_first().expect("the probe");
        assert!(merge.len() <= 1);
        let last = merge.first().unwrap_or(file);
        assert_eq!(graph.vertices()[graph.terminal().vertex], **last);
        let resolved = merge.first().map(|merge| merge.inputs.len() - 1);
        let answer = export.answer(file.inputs.len(), resolved);
        // No answer, or one that cannot be, is as much as is known.
        if world.answer.first().is_some_and(|first| *first != u8::MAX) {
            cache.learn(&probe, &answer).expect("well formed");
        }
    }
    let recall = Recall::default();
    let finished = cache.finish(None, &[], |name| recall.get(name));
    finished.ok().map(|embedded| {
        recall.remember(embedded.memory);
        embedded.cache
    })
}

fn assumptions() -> Assumptions {
    Assumptions {
        platform: Some(platform()),
        ..Default::default()
    }
}

/// Every record comes after its sources, and each input has one.
fn check_order(set: &RecordSet) {
    let mut before = vec![false; set.records().len()];
    for &number in set.sources_first() {
        for links in &set.records()[number].inputs {
            assert!(!links.is_empty());
            assert!(links.iter().all(|link| before[link.record]));
        }
        before[number] = true;
    }
    assert!(before.iter().all(|&is| is));
}
