//! Whole loads, from gtbinds to a registry, with archives from another machine.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::Router;
use axum::http::StatusCode;
use tempfile::TempDir;

use super::*;
use crate::adapters::wasm::CacheDir;
use crate::pack::BuiltPack;
use crate::registry::Shelf;

/// A folder of gtbinds, a cache, and a web server that has one pack.
struct Bench {
    dir: TempDir,
    pack: BuiltPack,
    server: String,
    asked: Arc<AtomicUsize>,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sources = dir.path().join("sources");
        fs::create_dir_all(sources.join("flows")).unwrap();
        let config = "pack_id: far\nversion: 1.0.0\nkind: application\npublisher: tests\n";
        fs::write(sources.join("pack.yaml"), config).unwrap();
        let flow = "id: main\ntype: messaging\nnodes:\n  hi:\n    emit.message: {text: Hi}\n";
        fs::write(sources.join("flows/main.ygtc"), flow).unwrap();
        let pack = pack::build(&sources).unwrap();

        let asked: Arc<AtomicUsize> = Arc::default();
        let (count, bytes) = (Arc::clone(&asked), pack.bytes.clone());
        let file = move || {
            count.fetch_add(1, Relaxed);
            std::future::ready(bytes.clone())
        };
        let app = Router::new()
            .route("/far.gtpack", axum::routing::get(file))
            .fallback(|| std::future::ready(StatusCode::NOT_FOUND));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fs::create_dir(dir.path().join("bindings")).unwrap();
        Self {
            dir,
            pack,
            server,
            asked,
        }
    }

    fn bind(&self, tenant: &str, reference: &str) {
        let text = format!(
            "tenant: {tenant}\npack_id: {}\npack_ref: {reference}\nflows: [{{id: main}}]\n",
            self.pack.id
        );
        let file = self
            .dir
            .path()
            .join("bindings")
            .join(format!("{tenant}.gtbind"));
        fs::write(file, text).unwrap();
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn loader(&self, cache: Option<PathBuf>) -> Loader {
        let mut settings = Settings::defaults().unwrap();
        settings.bindings_dirs = vec![self.dir.path().join("bindings")];
        settings.packs.cache_dir = cache;
        settings.components.cache_dir = CacheDir::Off;
        Loader::new(&settings, BTreeMap::new()).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

#[tokio::test]
async fn an_archive_is_fetched_once_and_then_comes_from_the_cache() {
    let bench = Bench::new().await;
    let reference = format!("{}/far.gtpack", bench.server);
    bench.bind("a", &reference);
    bench.bind("b", &reference);
    for _ in 0..2 {
        let loaded = bench.loader(Some(bench.cache())).load().await.unwrap();
        assert_eq!(loaded.registry.packs().len(), 2);
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        assert_eq!(bench.asked(), 1);
    }
    // The cache answers for an address that nobody answers at.
    bench.bind("a", "https://packs.invalid/far.gtpack");
    bench.loader(Some(bench.cache())).load().await.unwrap();

    let cached = Cache::new(bench.cache()).file(&bench.pack.id);
    fs::write(cached, "damaged").unwrap();
    bench.bind("a", &reference);
    bench.loader(Some(bench.cache())).load().await.unwrap();
    assert_eq!(
        bench.asked(),
        2,
        "what is damaged in the cache is fetched again"
    );
}

#[tokio::test]
async fn without_a_cache_that_takes_it_an_archive_is_loaded_all_the_same() {
    let bench = Bench::new().await;
    bench.bind("a", &format!("{}/far.gtpack", bench.server));
    bench.loader(None).load().await.unwrap();
    let unfit = bench.dir.path().join("sources/pack.yaml");
    let loaded = bench.loader(Some(unfit)).keeping().load().await.unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().collect();
    let [warning] = warnings[..] else {
        panic!("{warnings:?}")
    };
    assert_eq!(warning.place.as_deref(), Some("setting packs.cache_dir"));
    assert_eq!(bench.asked(), 2);
}

#[tokio::test]
async fn an_archive_that_does_not_come_is_a_problem_of_its_gtbind() {
    let bench = Bench::new().await;
    bench.bind("a", &format!("{}/absent.gtpack", bench.server));
    let problems = bench
        .loader(Some(bench.cache()))
        .load()
        .await
        .err()
        .unwrap();
    let problems: Vec<_> = problems.iter().collect();
    let [problem] = problems[..] else {
        panic!("{problems:?}")
    };
    assert!(problem.file.as_ref().unwrap().ends_with("a.gtbind"));
    assert!(
        problem.place.as_ref().unwrap().ends_with("pack_ref"),
        "{problem}"
    );
    assert!(problem.message.contains("status 404"), "{problem}");
    assert!(problem.remedy.is_some());
}

#[tokio::test]
async fn a_local_archive_is_kept_only_by_who_keeps_and_found_on_the_shelf_from_then_on() {
    let bench = Bench::new().await;
    let file = bench.dir.path().join("near.gtpack");
    fs::write(&file, &bench.pack.bytes).unwrap();
    bench.bind("a", &file.display().to_string());
    let (pack, tenant) = (bench.pack.id, "a".parse().unwrap());
    let loader = bench.loader(Some(bench.cache()));
    loader.load().await.unwrap();
    assert!(!bench.cache().exists());
    assert!(Shelf::load(&loader, pack, &tenant).await.is_none());

    let keeping = bench.loader(Some(bench.cache())).keeping();
    let loaded = keeping.load().await.unwrap();
    fs::remove_file(file).unwrap();
    let kept = Shelf::load(&loader, pack, &tenant).await.unwrap();
    assert_eq!((kept.id, kept.name.as_str()), (pack, "far"));
    assert!(kept.flows.is_empty());
    assert!(loaded.registry.pack(&tenant, &pack).is_some());

    fs::write(Cache::new(bench.cache()).file(&pack), "damaged").unwrap();
    assert!(Shelf::load(&loader, pack, &tenant).await.is_none());
}
