import ca.uhn.fhir.batch2.jobs.config.Batch2JobsConfig;
import ca.uhn.fhir.batch2.jobs.export.BulkDataExportProvider;
import ca.uhn.fhir.batch2.maintenance.JobMaintenanceServiceImpl;
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.config.ThreadPoolFactoryConfig;
import ca.uhn.fhir.jpa.api.dao.IFhirSystemDao;
import ca.uhn.fhir.jpa.batch2.JpaBatch2Config;
import ca.uhn.fhir.jpa.binary.api.IBinaryStorageSvc;
import ca.uhn.fhir.jpa.binstore.DatabaseBinaryContentStorageSvcImpl;
import ca.uhn.fhir.jpa.config.HapiJpaConfig;
import ca.uhn.fhir.jpa.config.r4.JpaR4Config;
import ca.uhn.fhir.jpa.config.util.HapiEntityManagerFactoryUtil;
import ca.uhn.fhir.jpa.model.config.PartitionSettings;
import ca.uhn.fhir.jpa.model.config.SubscriptionSettings;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirH2Dialect;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirPostgresDialect;
import ca.uhn.fhir.jpa.provider.JpaCapabilityStatementProvider;
import ca.uhn.fhir.jpa.provider.JpaSystemProvider;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.jpa.subscription.channel.config.SubscriptionChannelConfig;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.interceptor.ResponseHighlighterInterceptor;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import ca.uhn.fhir.rest.server.util.ISearchParamRegistry;
import jakarta.persistence.EntityManagerFactory;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import javax.sql.DataSource;
import org.apache.commons.dbcp2.BasicDataSource;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.springframework.beans.factory.config.BeanPostProcessor;
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.context.annotation.Primary;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;

/**
 * A real HAPI FHIR JPA R4 server on loopback, for tests and the demo.
 *
 * <p>Environment: FHIR_PORT (0 = any), FHIR_DB_URL (default: H2 in memory), FHIR_DB_USER, FHIR_DB_PASSWORD,
 * FHIR_READY_FILE (receives the base address once the server answers). It ends when its standard input is
 * closed, so it never outlives the program that started it.
 *
 * <p>Put together from the Spring configurations that HAPI's own modules publish.
 */
public class FhirServer {

    static String env(String name, String otherwise) {
        String v = System.getenv(name);
        return v == null || v.isBlank() ? otherwise : v;
    }

    @Configuration
    @Import({JpaR4Config.class, HapiJpaConfig.class, JpaBatch2Config.class, Batch2JobsConfig.class,
             SubscriptionChannelConfig.class, ThreadPoolFactoryConfig.class})
    static class Config {

        @Bean(destroyMethod = "close")
        public BasicDataSource dataSource() {
            BasicDataSource ds = new BasicDataSource();
            ds.setUrl(env("FHIR_DB_URL", "jdbc:h2:mem:fhir;DB_CLOSE_DELAY=-1"));
            ds.setUsername(env("FHIR_DB_USER", "sa"));
            ds.setPassword(env("FHIR_DB_PASSWORD", ""));
            ds.setMaxTotal(24);
            return ds;
        }

        @Bean
        public LocalContainerEntityManagerFactoryBean entityManagerFactory(
                ConfigurableListableBeanFactory factory, FhirContext ctx, DataSource ds, JpaStorageSettings settings) {
            LocalContainerEntityManagerFactoryBean b =
                    HapiEntityManagerFactoryUtil.newEntityManagerFactory(factory, ctx, settings);
            b.setPersistenceUnitName("fhir");
            b.setDataSource(ds);
            boolean pg = env("FHIR_DB_URL", "jdbc:h2").startsWith("jdbc:postgresql");
            Properties p = new Properties();
            p.put("hibernate.dialect", (pg ? HapiFhirPostgresDialect.class : HapiFhirH2Dialect.class).getName());
            p.put("hibernate.hbm2ddl.auto", "update");
            p.put("hibernate.jdbc.batch_size", "100");
            p.put("hibernate.order_inserts", "true"); // without it, rows of many tables are never batched
            p.put("hibernate.order_updates", "true");
            p.put("hibernate.cache.use_query_cache", "false");
            p.put("hibernate.cache.use_second_level_cache", "false");
            p.put("hibernate.search.enabled", "false"); // no Lucene: no _text/_content search
            b.setJpaProperties(p);
            return b;
        }

        @Bean @Primary
        public JpaTransactionManager transactionManager(EntityManagerFactory emf) {
            JpaTransactionManager tm = new JpaTransactionManager();
            tm.setEntityManagerFactory(emf);
            return tm;
        }

        @Bean
        public JpaStorageSettings jpaStorageSettings() {
            JpaStorageSettings s = new JpaStorageSettings();
            s.setReuseCachedSearchResultsForMillis(null); // a search sees what was just written
            s.setAllowMultipleDelete(true);
            s.setExpungeEnabled(true);
            s.setAllowExternalReferences(false);
            s.setEnforceReferentialIntegrityOnWrite(true);
            s.setJobFastTrackingEnabled(true);
            s.setEnableTaskBulkExportJobExecution(true);
            return s;
        }

        /** $export advances one step a maintenance pass: every second here, not once a minute. */
        @Bean
        static BeanPostProcessor fastJobs() {
            return new BeanPostProcessor() {
                @Override public Object postProcessAfterInitialization(Object bean, String name) {
                    if (bean instanceof JobMaintenanceServiceImpl j) j.setScheduledJobFrequencyMillis(1000);
                    return bean;
                }
            };
        }

        @Bean public PartitionSettings partitionSettings() { return new PartitionSettings(); }
        @Bean public SubscriptionSettings subscriptionSettings() { return new SubscriptionSettings(); }
        @Bean public IBinaryStorageSvc binaryStorageSvc() { return new DatabaseBinaryContentStorageSvcImpl(); }

        @Bean
        public RestfulServer fhirServer(FhirContext ctx, ResourceProviderFactory resourceProviders,
                JpaSystemProvider<?, ?> systemProvider, IFhirSystemDao<?, ?> systemDao, JpaStorageSettings settings,
                ISearchParamRegistry params, IValidationSupport validation, DatabaseBackedPagingProvider paging,
                BulkDataExportProvider export) {
            RestfulServer rs = new RestfulServer(ctx);
            rs.registerProviders(resourceProviders.createProviders());
            rs.registerProvider(systemProvider);
            rs.registerProvider(export);
            paging.setDefaultPageSize(20);
            paging.setMaximumPageSize(1000);
            rs.setPagingProvider(paging);
            JpaCapabilityStatementProvider cs =
                    new JpaCapabilityStatementProvider(rs, systemDao, settings, params, validation);
            cs.setImplementationDescription("HAPI FHIR JPA R4, for tests");
            rs.setServerConformanceProvider(cs);
            rs.setDefaultResponseEncoding(ca.uhn.fhir.rest.api.EncodingEnum.JSON);
            rs.registerInterceptor(new ResponseHighlighterInterceptor());
            return rs;
        }
    }

    public static void main(String[] args) throws Exception {
        AnnotationConfigApplicationContext app = new AnnotationConfigApplicationContext(Config.class);
        int port = Integer.parseInt(env("FHIR_PORT", "0"));
        Server jetty = new Server(new InetSocketAddress("127.0.0.1", port));
        ServletContextHandler web = new ServletContextHandler("/");
        ServletHolder fhir = new ServletHolder(app.getBean(RestfulServer.class));
        fhir.setInitOrder(1);
        web.addServlet(fhir, "/fhir/*");
        jetty.setHandler(web);
        jetty.start();
        int bound = ((ServerConnector) jetty.getConnectors()[0]).getLocalPort();
        Path ready = Path.of(System.getenv("FHIR_READY_FILE"));
        Path draft = ready.resolveSibling(ready.getFileName() + ".tmp");
        Files.writeString(draft, "http://127.0.0.1:" + bound + "/fhir\n");
        Files.move(draft, ready);
        Thread watch = new Thread(() -> {
            try {
                while (System.in.read() >= 0) { }
            } catch (java.io.IOException closed) {
                // as good as an end of input
            }
            System.exit(0);
        });
        watch.setDaemon(true);
        watch.start();
        jetty.join();
    }
}
